//! The manifests that users copy: strictly what the API's schemas allow, hardened, and complete.
//!
//! Kubernetes' kinds are read as the types that are generated from its OpenAPI document, KServe's as the types below; a
//! field that neither knows is refused with its path. That the pods run is `integration/pods.sh`'s business.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails it by a panic")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec, Pod, Secret,
    ServiceAccount, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// KServe's kinds, as far as the manifests use them; the fields are those of KServe 0.21's published SDK.
/// Source: <https://github.com/kserve/kserve/tree/master/pkg/apis/serving>.
mod kserve {
    #![allow(dead_code, reason = "what is read here is checked by reading it")]

    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Resource<Spec> {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: Spec,
        disabled: Option<bool>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct StorageContainer {
        container: Container,
        supported_uri_formats: Vec<UriFormat>,
        workload_type: WorkloadType,
        supports_multi_model_download: Option<bool>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum UriFormat {
        Prefix(String),
        Regex(String),
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum WorkloadType {
        InitContainer,
        LocalModelDownloadJob,
    }

    #[derive(Deserialize)]
    pub(super) struct InferenceService {
        predictor: Predictor,
    }

    /// A pod's spec beside the model.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Predictor {
        model: Model,
        service_account_name: Option<String>,
        storage_container_name: Option<String>,
        #[serde(default)]
        init_containers: Vec<Container>,
        #[serde(default)]
        volumes: Vec<Volume>,
    }

    /// A container beside what it serves.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Model {
        model_format: ModelFormat,
        storage: Option<Storage>,
        storage_uri: Option<String>,
        #[serde(default)]
        volume_mounts: Vec<VolumeMount>,
    }

    #[derive(Deserialize)]
    struct ModelFormat {
        name: String,
        version: Option<String>,
    }

    #[derive(Deserialize)]
    struct Storage {
        key: String,
        path: String,
        #[serde(default)]
        parameters: BTreeMap<String, String>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct LocalModelNodeGroup {
        storage_limit: Quantity,
        persistent_volume_claim_spec: PersistentVolumeClaimSpec,
        persistent_volume_spec: PersistentVolumeSpec,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct LocalModelCache {
        source_model_uri: String,
        model_size: Quantity,
        node_groups: Vec<String>,
    }
}

/// Why a manifest is not what its schema allows: the path of each field that the kind does not have, or what is missing.
fn complaints(manifest: &Value) -> Vec<String> {
    fn read<Kind: DeserializeOwned>(manifest: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        match serde_ignored::deserialize::<_, _, Kind>(manifest, |path| unknown.push(format!("unknown field {path}"))) {
            Ok(_) => unknown,
            Err(error) => vec![error.to_string()],
        }
    }
    match (manifest["apiVersion"].as_str(), manifest["kind"].as_str()) {
        (Some("v1"), Some("Pod")) => read::<Pod>(manifest),
        (Some("v1"), Some("Secret")) => read::<Secret>(manifest),
        (Some("v1"), Some("ConfigMap")) => read::<ConfigMap>(manifest),
        (Some("v1"), Some("ServiceAccount")) => read::<ServiceAccount>(manifest),
        (Some("v1"), Some("PersistentVolumeClaim")) => read::<PersistentVolumeClaim>(manifest),
        (Some("serving.kserve.io/v1alpha1"), Some("ClusterStorageContainer")) => {
            read::<kserve::Resource<kserve::StorageContainer>>(manifest)
        }
        (Some("serving.kserve.io/v1alpha1"), Some("LocalModelNodeGroup")) => {
            read::<kserve::Resource<kserve::LocalModelNodeGroup>>(manifest)
        }
        (Some("serving.kserve.io/v1alpha1"), Some("LocalModelCache")) => {
            read::<kserve::Resource<kserve::LocalModelCache>>(manifest)
        }
        (Some("serving.kserve.io/v1beta1"), Some("InferenceService")) => {
            read::<kserve::Resource<kserve::InferenceService>>(manifest)
        }
        (version, kind) => vec![format!("no schema for {kind:?} of {version:?}")],
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

/// Every document of every manifest, with a name for messages.
fn manifests() -> Vec<(String, Value)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    let mut manifests = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> = serde_yaml_ng::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{name}: {error}")))
            .collect();
        manifests.extend(
            documents.into_iter().map(|document| {
                (format!("{name}, {}", document["kind"].as_str().unwrap_or("without a kind")), document)
            }),
        );
    }
    manifests
}

/// The containers that run this project's image, each with the security context of its pod.
fn initializers() -> Vec<(String, Value, Value)> {
    fn collect(name: &str, value: &Value, pod: &Value, into: &mut Vec<(String, Value, Value)>) {
        match value {
            Value::Object(fields) => {
                if value["name"] == "storage-initializer" && fields.contains_key("image") {
                    into.push((name.to_owned(), value.clone(), pod.clone()));
                }
                let pod = if fields.contains_key("initContainers") { &value["securityContext"] } else { pod };
                fields.values().for_each(|value| collect(name, value, pod, into));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(name, value, pod, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (name, manifest) in manifests() {
        collect(&name, &manifest, &Value::Null, &mut found);
    }
    found
}

/// What is not hardened about a container in a pod with this security context.
fn softness(container: &Value, pod: &Value) -> Vec<&'static str> {
    let own = &container["securityContext"];
    let either = |field: &str| if own[field].is_null() { pod[field].clone() } else { own[field].clone() };
    let mut found = Vec::new();
    let mut demand = |holds: bool, what| {
        if !holds {
            found.push(what);
        }
    };
    demand(either("runAsNonRoot") == true, "may run as root");
    demand(either("seccompProfile")["type"] == "RuntimeDefault", "no seccomp profile");
    demand(own["allowPrivilegeEscalation"] == false, "may gain privileges");
    demand(own["readOnlyRootFilesystem"] == true, "writable root file system");
    demand(own["capabilities"] == serde_json::json!({ "drop": ["ALL"] }), "capabilities");
    demand(container["resources"]["limits"]["memory"] == "64Mi", "memory limit is not 64Mi");
    demand(container["resources"]["limits"]["cpu"] == "1", "CPU limit is not 1");
    demand(container["terminationMessagePolicy"] == "FallbackToLogsOnError", "failures do not show the log's end");
    found
}

/// Every path to a field of the schema; maps whose keys are the user's own are left out.
fn fields(value: &Value, path: &str, into: &mut Vec<String>) {
    let free = ["labels", "annotations", "data", "stringData", "limits", "requests", "capacity", "parameters"];
    match value {
        Value::Object(object) => {
            for (field, value) in object {
                let path = format!("{path}/{field}");
                into.push(path.clone());
                if !free.contains(&field.as_str()) {
                    fields(value, &path, into);
                }
            }
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| fields(value, &format!("{path}/{index}"), into));
        }
        _ => {}
    }
}

/// The manifest with another name for the field at `path`.
fn misspelt(manifest: &Value, path: &str) -> Value {
    let mut manifest = manifest.clone();
    let (parent, field) = path.rsplit_once('/').unwrap();
    let object = manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    let value = object.remove(field).unwrap();
    object.insert(format!("{field}s"), value);
    manifest
}

#[test]
fn every_manifest_is_what_its_schema_allows() {
    let manifests = manifests();
    assert!(manifests.len() >= 10, "manifests are missing: {}", manifests.len());
    for (name, manifest) in manifests {
        assert_eq!(complaints(&manifest), Vec::<String>::new(), "{name}");
    }
    // Past the test runner's capture: whoever reads the output should know what was not run.
    let _ = writeln!(std::io::stderr(), "left out: the manifests as pods, which integration/pods.sh runs (just pods)");
}

/// The twin: with the name of any one field changed, anywhere, the manifest is refused.
#[test]
fn a_misspelt_field_is_refused_wherever_it_is() {
    let mut changed = 0;
    for (name, manifest) in manifests() {
        let mut paths = Vec::new();
        fields(&manifest, "", &mut paths);
        for path in paths {
            changed += 1;
            assert_ne!(complaints(&misspelt(&manifest, &path)), Vec::<String>::new(), "{name}: {path} misspelt");
        }
    }
    assert!(changed > 300, "only {changed} fields");
}

#[test]
fn a_value_of_the_wrong_type_is_refused() {
    let (_, mut pod) = manifests().into_iter().find(|(_, manifest)| manifest["kind"] == "Pod").unwrap();
    assert_eq!(complaints(&pod), Vec::<String>::new());
    pod["spec"]["securityContext"]["runAsNonRoot"] = "true".into();
    assert_ne!(complaints(&pod), Vec::<String>::new());
}

#[test]
fn every_initializer_is_hardened_and_limited() {
    let initializers = initializers();
    assert!(initializers.len() >= 6, "initializers are missing: {}", initializers.len());
    for (name, container, pod) in initializers {
        assert_eq!(softness(&container, &pod), Vec::<&str>::new(), "{name}");
    }
}

/// The twin: a container without any of it is told so in every point.
#[test]
fn a_container_without_security_context_and_limits_is_noticed() {
    assert_eq!(softness(&serde_json::json!({ "name": "storage-initializer" }), &Value::Null).len(), 8);
}

#[test]
fn every_mount_has_its_volume_and_every_volume_what_it_names() {
    let manifests = manifests();
    let there = |kind: &str, name: &Value| {
        manifests.iter().any(|(_, manifest)| manifest["kind"] == kind && manifest["metadata"]["name"] == *name)
    };
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut mounts = 0;
    for (name, manifest) in &manifests {
        let spec =
            if manifest["kind"] == "InferenceService" { &manifest["spec"]["predictor"] } else { &manifest["spec"] };
        let volumes = each(&spec["volumes"]);
        let mut containers = [each(&spec["initContainers"]), each(&spec["containers"])].concat();
        containers.push(spec["model"].clone());
        for mount in containers.iter().flat_map(|container| each(&container["volumeMounts"])) {
            mounts += 1;
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{name}: {mount} without a volume");
        }
        for volume in &volumes {
            let found = match volume {
                volume if volume["secret"].is_object() => there("Secret", &volume["secret"]["secretName"]),
                volume if volume["configMap"].is_object() => there("ConfigMap", &volume["configMap"]["name"]),
                volume if volume["persistentVolumeClaim"].is_object() => {
                    there("PersistentVolumeClaim", &volume["persistentVolumeClaim"]["claimName"])
                }
                volume => volume["emptyDir"].is_object(),
            };
            assert!(found, "{name}: nothing for {volume}");
        }
    }
    assert!(mounts > 10, "only {mounts} mounts");
}

#[test]
fn every_storage_key_is_an_entry_and_every_entry_is_json_with_known_fields() {
    const KNOWN: [&str; 8] = [
        "type",
        "endpoint_url",
        "region",
        "bucket",
        "access_key_id",
        "secret_access_key",
        "cabundle_configmap",
        "certificate",
    ];
    let manifests = manifests();
    let mut entries = Vec::new();
    for (name, secret) in manifests.iter().filter(|(_, manifest)| manifest["kind"] == "Secret") {
        for (key, entry) in secret["stringData"].as_object().unwrap() {
            let entry: BTreeMap<String, String> = serde_json::from_str(entry.as_str().unwrap())
                .unwrap_or_else(|error| panic!("{name}: entry {key}: {error}"));
            assert!(entry.keys().all(|field| KNOWN.contains(&field.as_str())), "{name}: entry {key}: {entry:?}");
            if let Some(configmap) = entry.get("cabundle_configmap") {
                let there =
                    |manifest: &Value| manifest["kind"] == "ConfigMap" && manifest["metadata"]["name"] == **configmap;
                assert!(manifests.iter().any(|(_, manifest)| there(manifest)), "{name}: no ConfigMap {configmap}");
            }
            entries.push(key.clone());
        }
    }
    for (name, container, _) in initializers() {
        for variable in container["env"].as_array().into_iter().flatten() {
            let key = match variable["name"].as_str().unwrap() {
                "STORAGE_KEY" => &variable["value"],
                _ => &variable["valueFrom"]["secretKeyRef"]["key"],
            };
            assert!(entries.iter().any(|entry| key == entry), "{name}: no entry {key}");
        }
    }
}

#[test]
fn kserve_finds_the_image_in_both_kinds_of_workload() {
    let containers: Vec<Value> = manifests()
        .into_iter()
        .map(|(_, manifest)| manifest)
        .filter(|manifest| manifest["kind"] == "ClusterStorageContainer")
        .collect();
    for workload in ["initContainer", "localModelDownloadJob"] {
        let container = containers.iter().find(|manifest| manifest["spec"]["workloadType"] == workload).unwrap();
        assert_eq!(container["spec"]["supportedUriFormats"], serde_json::json!([{ "prefix": "s3://" }]));
    }
    let names: Vec<&Value> = containers.iter().map(|manifest| &manifest["metadata"]["name"]).collect();
    for (name, manifest) in manifests() {
        let chosen = &manifest["spec"]["predictor"]["storageContainerName"];
        assert!(chosen.is_null() || names.contains(&chosen), "{name}: no ClusterStorageContainer {chosen}");
    }
}

#[test]
fn every_image_is_this_version() {
    for (name, container, _) in initializers() {
        assert_eq!(container["image"], concat!("storage-initializer:", env!("CARGO_PKG_VERSION")), "{name}");
    }
}
