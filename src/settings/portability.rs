//! What works here and may not elsewhere: the same Secret is read by KServe and by ModelMesh, and each of them ignores what
//! the other needs.

use super::layers::Layers;
use crate::storage_config::Field;

/// Linux does not start a program with a longer variable (`MAX_ARG_STRLEN` less the final NUL), and KServe passes the entry
/// in one.
const MAX_VARIABLE_BYTES: usize = 131_071;

/// From here on, the next CA in the bundle may be the one too many.
const NEAR_THE_LIMIT_BYTES: usize = 100_000;

impl Layers<'_> {
    /// One line for each thing that another reader of the Secret would stumble over.
    pub(super) fn portability(&self) -> Vec<String> {
        let Some((name, entry)) = &self.entry else {
            return Vec::new();
        };
        let has = |field: Field| entry.value(field).is_some();
        let mut advice = Vec::new();
        let for_kserve = has(Field::CaBundle) || has(Field::CabundleConfigmap);
        if has(Field::Certificate) && !for_kserve {
            advice.push(format!(
                "{name}: KServe ignores \"certificate\"; for its own initializer add \"cabundle_configmap\" with the name of a ConfigMap that holds the CA under cabundle.crt"
            ));
        }
        if for_kserve && !has(Field::Certificate) {
            advice.push(format!(
                "{name}: ModelMesh reads neither \"ca_bundle\" nor \"cabundle_configmap\"; where ModelMesh reads this Secret too, add \"certificate\" with the PEM text"
            ));
        }
        let ignored_by_modelmesh: Vec<&str> =
            [Field::VerifySsl, Field::Anonymous].into_iter().filter(|field| has(*field)).map(Field::name).collect();
        if !ignored_by_modelmesh.is_empty() {
            advice.push(format!("{name}: ModelMesh ignores {}", ignored_by_modelmesh.join(" and ")));
        }
        let ours_alone: Vec<&str> = [Field::SessionToken, Field::AddressingStyle]
            .into_iter()
            .filter(|field| has(*field))
            .map(Field::name)
            .collect();
        if !ours_alone.is_empty() {
            advice.push(format!("{name}: neither KServe nor ModelMesh reads {}", ours_alone.join(" or ")));
        }
        if self.entry_bytes > NEAR_THE_LIMIT_BYTES {
            advice.push(format!(
                "{name}: {} bytes; KServe passes it in one environment variable, and past {MAX_VARIABLE_BYTES} the container cannot start: keep the CA in a ConfigMap and name that in \"cabundle_configmap\"",
                self.entry_bytes
            ));
        }
        advice
    }
}
