use std::path::Path;

use super::*;

const ENTRY: &str = r#"{"type":"s3","endpoint_url":"https://minio","access_key_id":"id","secret_access_key":"hush"}"#;

/// A mounted Secret and variables; no test sees the machine's own.
struct Given {
    secret: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Given {
    fn variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let secret = tempfile::tempdir().unwrap();
        let own = [("STORAGE_CONFIG_DIR", secret.path().display().to_string())];
        let uri = [("STORAGE_URI", "s3://models/bert")];
        let given = uri.into_iter().chain(variables).map(|(name, value)| (name, value.to_owned()));
        let variables = own.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect();
        Self { secret, variables }
    }

    fn nothing() -> Self {
        Self::variables([])
    }

    fn file(self, name: &str, content: &str) -> Self {
        std::fs::write(self.secret.path().join(name), content).unwrap();
        self
    }

    fn read(&self) -> Result<Settings, SettingsError> {
        Settings::read(&Environment::from_iter(self.variables.clone()), &[])
    }

    fn settings(&self) -> Settings {
        self.read().unwrap()
    }

    /// The problems as users see them, and the warnings likewise, without the directory's name.
    fn problems(&self) -> String {
        self.normalised(&self.read().unwrap_err().to_string())
    }

    fn warnings(&self) -> String {
        self.normalised(&self.settings().warnings.join("\n"))
    }

    fn normalised(&self, text: &str) -> String {
        text.replace(&self.secret.path().display().to_string(), "/storage-config")
    }
}

fn problem_of(variables: &[(&str, &str)]) -> String {
    Given::variables(variables.iter().copied()).problems()
}

mod precedence {
    use super::*;

    /// Every layer that a region can come from, lowest first.
    #[test]
    fn each_layer_wins_over_all_below_it_and_is_remembered() {
        let region = |given: Given| {
            let region = given.settings().connection.region.unwrap();
            (region.value, given.normalised(&region.origin.to_string()))
        };
        let said = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());

        let host = [("AWS_ENDPOINT_URL", "https://s3.eu-south-1.amazonaws.com")];
        assert_eq!(region(Given::variables(host)), said("eu-south-1", "the endpoint's host"));
        let plain = || host.into_iter().chain([("AWS_DEFAULT_REGION", "default")]);
        assert_eq!(region(Given::variables(plain())), said("default", "env AWS_DEFAULT_REGION"));
        let both = || plain().chain([("AWS_REGION", "plain")]);
        assert_eq!(region(Given::variables(both())), said("plain", "env AWS_REGION"));
        let mounted = Given::variables(both()).file("AWS_DEFAULT_REGION", "connection\n");
        assert_eq!(region(mounted), said("connection", "/storage-config/AWS_DEFAULT_REGION"));
        let entry = || Given::variables(both()).file("default", r#"{"region": "entry"}"#);
        let origin = r#"storage-config entry "default" (/storage-config/default), field "region""#;
        assert_eq!(region(entry()), said("entry", origin));
        let variable = both().chain([("STORAGE_CONFIG", r#"{"region": "variable"}"#)]);
        let given = Given::variables(variable.clone()).file("default", r#"{"region": "entry"}"#);
        assert_eq!(region(given), said("variable", r#"env STORAGE_CONFIG, field "region""#));
        let overridden = variable.chain([("STORAGE_OVERRIDE_CONFIG", r#"{"region": "override"}"#)]);
        let origin = r#"env STORAGE_OVERRIDE_CONFIG, field "region""#;
        assert_eq!(region(Given::variables(overridden)), said("override", origin));
    }

    #[test]
    fn an_empty_value_lets_the_layer_below_through_and_an_empty_override_removes_the_entrys() {
        let region = |variables: &[(&str, &str)], entry: &str| {
            let given = Given::variables(variables.iter().copied()).file("default", entry);
            given.settings().connection.region.map(|region| region.value)
        };
        let plain = ("AWS_REGION", "plain");
        assert_eq!(region(&[plain], r#"{"region": ""}"#).as_deref(), Some("plain"));
        assert_eq!(region(&[plain], r#"{"region": null}"#).as_deref(), Some("plain"));
        let removed = ("STORAGE_OVERRIDE_CONFIG", r#"{"region": null}"#);
        assert_eq!(region(&[plain, removed], r#"{"region": "entry"}"#).as_deref(), Some("plain"));
        assert_eq!(region(&[removed], r#"{"region": "entry"}"#), None);
        assert_eq!(region(&[], r#"{"region": " \n"}"#), None);
    }

    #[test]
    fn the_sdks_variables_for_the_endpoint_win_over_kserves_and_those_over_openshifts() {
        let endpoint = |skip: usize| {
            let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT", "AWS_S3_ENDPOINT"];
            let hosts = ["https://first", "https://second", "third", "https://fourth"];
            let given = Given::variables(names.into_iter().zip(hosts).skip(skip));
            given.settings().connection.endpoint.unwrap().value.to_string()
        };
        assert_eq!([0, 1, 2, 3].map(endpoint), ["https://first", "https://second", "https://third", "https://fourth"]);
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        let settings = Given::nothing().settings();
        assert!(settings.connection.endpoint.is_none() && settings.connection.region.is_none());
        assert!(matches!(settings.connection.credentials, Credentials::Chain));
        assert_eq!(settings.trust.verify, Sourced::default(true));
        assert_eq!(settings.trust.configmap_dir, Sourced::default(PathBuf::from("/etc/ssl/custom-certs")));
        assert_eq!(settings.downloads[0].destination, Path::new("/mnt/models"));
        assert_eq!(settings.limits.connect_timeout.value, Duration::from_secs(5));
        assert_eq!(settings.limits.max_attempts, None);
        let empty = "the Secret mounted at /storage-config is empty; only the environment is used";
        assert_eq!(Given::nothing().warnings(), empty);
    }

    #[test]
    fn credentials_are_anonymous_then_keys_then_the_chain() {
        let credentials = |variables: &[(&str, &str)]| {
            Given::variables(variables.iter().copied()).settings().connection.credentials.to_string()
        };
        let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")];
        assert_eq!(credentials(&[]), "the default AWS credential chain");
        assert_eq!(credentials(&keys), "keys from env AWS_ACCESS_KEY_ID");
        let anonymous = [keys[0], keys[1], ("awsAnonymousCredential", "True")];
        assert_eq!(credentials(&anonymous), "anonymous (env awsAnonymousCredential)");
    }

    #[test]
    fn no_settings_show_a_secret() {
        let given = Given::variables([("AWS_SESSION_TOKEN", "hush-hush")]).file("default", ENTRY);
        assert!(!format!("{:?}", given.settings()).contains("hush"));
    }

    #[test]
    fn path_style_is_for_custom_endpoints_and_the_host_name_for_amazons() {
        let path_style = |variables: &[(&str, &str)]| {
            Given::variables(variables.iter().copied()).settings().connection.uses_path_style()
        };
        assert!(!path_style(&[]));
        assert!(!path_style(&[("AWS_ENDPOINT_URL", "https://s3.us-west-2.amazonaws.com")]));
        assert!(path_style(&[("AWS_ENDPOINT_URL", "https://minio")]));
        let minio = ("AWS_ENDPOINT_URL", "https://minio");
        assert!(!path_style(&[minio, ("S3_USER_VIRTUAL_BUCKET", "1")]));
        assert!(!path_style(&[minio, ("S3_USE_VIRTUAL_BUCKET", "true")]));
        let entry = r#"{"addressing_style": "path"}"#;
        assert!(path_style(&[("STORAGE_CONFIG", entry), ("S3_USER_VIRTUAL_BUCKET", "1")]));
    }
}

mod problems {
    use super::*;

    #[test]
    fn a_secret_that_cannot_be_read() {
        let secret = tempfile::tempdir().unwrap();
        let missing = secret.path().join("missing");
        let message = problem_of(&[("STORAGE_CONFIG_DIR", missing.to_str().unwrap())]);
        insta::assert_snapshot!(message.replace(&secret.path().display().to_string(), ""), @"storage-config Secret (env STORAGE_CONFIG_DIR): /missing does not exist");
    }

    #[test]
    fn an_entry_that_is_not_there_or_not_chosen() {
        let two = |variables: &[(&str, &str)]| {
            Given::variables(variables.iter().copied()).file("one", ENTRY).file("two", ENTRY).problems()
        };
        insta::assert_snapshot!(two(&[("STORAGE_KEY", "three")]), @r#"env STORAGE_KEY names entry "three", which /storage-config does not have; it has: one, two"#);
        insta::assert_snapshot!(two(&[]), @"/storage-config has several entries and none is called default_s3 or default; set env STORAGE_KEY to one of: one, two");
        insta::assert_snapshot!(Given::variables([("STORAGE_KEY", "three")]).problems(), @r#"env STORAGE_KEY names entry "three", which /storage-config does not have; it has no entries: is the Secret mounted there?"#);
    }

    #[test]
    fn an_entry_that_is_no_entry() {
        let entry = |content: &str| Given::nothing().file("default", content).problems();
        insta::assert_snapshot!(entry("{\"type\": \"s3\",}"), @r#"storage-config entry "default" (/storage-config/default): not valid JSON: trailing comma at line 1 column 15; remove the comma before the closing brace"#);
        insta::assert_snapshot!(entry("{'type': 's3'}"), @r#"storage-config entry "default" (/storage-config/default): not valid JSON: key must be a string at line 1 column 2; JSON strings stand in double quotes"#);
        insta::assert_snapshot!(entry("{type: \"s3\"}"), @r#"storage-config entry "default" (/storage-config/default): not valid JSON: key must be a string at line 1 column 2; field names stand in double quotes"#);
        insta::assert_snapshot!(entry("{\"type\": \"s3\"}{}"), @r#"storage-config entry "default" (/storage-config/default): not valid JSON: trailing characters at line 1 column 15; there is more after the closing brace: one entry holds one object"#);
        insta::assert_snapshot!(entry("{\"ca_bundle\": \"C:\\certs\"}"), @r#"storage-config entry "default" (/storage-config/default): not valid JSON: invalid escape at line 1 column 19; a backslash inside a value must be written twice"#);
        insta::assert_snapshot!(entry("{\"bucket\": [\"models\"]}"), @r#"storage-config entry "default" (/storage-config/default): field "bucket" is a JSON array instead of a string"#);
        insta::assert_snapshot!(entry("eyJ0eXBlIjoiczMifQ=="), @r#"storage-config entry "default" (/storage-config/default): not valid JSON: expected value at line 1 column 1; it is still base64: encode it once under "data", or not at all under "stringData""#);
        insta::assert_snapshot!(entry("\"s3\""), @r#"storage-config entry "default" (/storage-config/default): a JSON string instead of an object such as {"type": "s3", ...}"#);
    }

    #[test]
    fn values_out_of_bounds() {
        insta::assert_snapshot!(problem_of(&[("STORAGE_CONFIG", r#"{"type": "hdfs"}"#)]), @r#"env STORAGE_CONFIG, field "type": "hdfs" is not supported; this initializer downloads from "s3" only"#);
        insta::assert_snapshot!(problem_of(&[("STORAGE_CONFIG", r#"{"addressing_style": "host"}"#)]), @r#"env STORAGE_CONFIG, field "addressing_style": "host" is not auto, path or virtual"#);
        insta::assert_snapshot!(problem_of(&[("S3_CONNECT_TIMEOUT", "5s")]), @r#"env S3_CONNECT_TIMEOUT: "5s" is not a number of seconds from 1 to 3600"#);
        insta::assert_snapshot!(problem_of(&[("S3_READ_TIMEOUT", "0")]), @r#"env S3_READ_TIMEOUT: "0" is not a number of seconds from 1 to 3600"#);
        insta::assert_snapshot!(problem_of(&[("S3_MAX_ATTEMPTS", "0")]), @r#"env S3_MAX_ATTEMPTS: "0" is not a whole number from 1 to 100"#);
        insta::assert_snapshot!(problem_of(&[("S3_MAX_FILE_CONCURRENCY", "-1")]), @r#"env S3_MAX_FILE_CONCURRENCY: "-1" is not a whole number from 1 to 1024"#);
        insta::assert_snapshot!(problem_of(&[("TRUST_STORE", "system")]), @r#"env TRUST_STORE: "system" is not combined or bundle-only"#);
        insta::assert_snapshot!(problem_of(&[("STORAGE_IGNORE_PATTERNS", r#"[["a"]]"#)]), @r#"env STORAGE_IGNORE_PATTERNS: ["a"] is not a pattern; write ["*.json", "*.bin"] or *.json,*.bin"#);
        insta::assert_snapshot!(problem_of(&[("STORAGE_ALLOW_PATTERNS", r#"["*.bin",]"#)]), @r#"env STORAGE_ALLOW_PATTERNS: "[\"*.bin\",]" looks like a JSON array but is none (trailing comma at line 1 column 10); write ["*.json", "*.bin"] or *.json,*.bin"#);
    }

    #[test]
    fn sources_and_endpoints_that_are_none() {
        insta::assert_snapshot!(problem_of(&[("STORAGE_URI", "models/bert")]), @r#"env STORAGE_URI: source "models/bert" has no scheme; write s3://bucket[/key-or-prefix]"#);
        insta::assert_snapshot!(problem_of(&[("STORAGE_URI", "s3:///bert")]), @"env STORAGE_URI: the source URI names no bucket; write s3://bucket[/key-or-prefix]");
        insta::assert_snapshot!(problem_of(&[("STORAGE_URI", "s3://models/bert\n/x")]), @r#"env STORAGE_URI: path "/bert\n/x" holds a control character; remove it (a YAML block `|` adds a line break, `|-` does not)"#);
        insta::assert_snapshot!(problem_of(&[("STORAGE_URI", ""), ("STORAGE_PATH", "bert")]), @r#"env STORAGE_PATH names a path, but no bucket is set; add "bucket" or "default_bucket" to the storage-config entry, or set env AWS_S3_BUCKET or STORAGE_URI"#);
        insta::assert_snapshot!(problem_of(&[("AWS_ENDPOINT_URL", "https://")]), @"env AWS_ENDPOINT_URL: not a URL (empty host); write https://host[:port]");
        insta::assert_snapshot!(problem_of(&[("AWS_ENDPOINT_URL", "https://minio:port")]), @"env AWS_ENDPOINT_URL: not a URL (invalid port number); write https://host[:port]");
        insta::assert_snapshot!(problem_of(&[("AWS_ENDPOINT_URL", "https://minio?region=x")]), @"env AWS_ENDPOINT_URL: a query or a fragment does not belong in an endpoint; write https://host[:port]");
        insta::assert_snapshot!(problem_of(&[("AWS_ENDPOINT_URL", "https://other.s3.amazonaws.com")]), @r#"env AWS_ENDPOINT_URL: the endpoint's host names bucket "other", the source names "models"; write the endpoint without the bucket"#);
    }

    #[test]
    fn halves_and_what_cannot_be_sent() {
        insta::assert_snapshot!(problem_of(&[("AWS_ACCESS_KEY_ID", "id")]), @"env AWS_ACCESS_KEY_ID is set, but secret_access_key (AWS_SECRET_ACCESS_KEY) is not; set both, or neither to use the default AWS credential chain");
        insta::assert_snapshot!(problem_of(&[("AWS_SECRET_ACCESS_KEY", "hush")]), @"env AWS_SECRET_ACCESS_KEY is set, but access_key_id (AWS_ACCESS_KEY_ID) is not; set both, or neither to use the default AWS credential chain");
        insta::assert_snapshot!(problem_of(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]), @"env AWS_WEB_IDENTITY_TOKEN_FILE is set, but env AWS_ROLE_ARN is not; web identity needs both");
        let broken = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hu\nsh")];
        insta::assert_snapshot!(problem_of(&broken), @"env AWS_SECRET_ACCESS_KEY holds a line break or another character that no credential has; was it encoded or pasted wrongly?");
    }

    #[test]
    fn several_are_counted_and_none_is_lost() {
        let variables = [("STORAGE_URI", "gs://x"), ("S3_MAX_ATTEMPTS", "x"), ("AWS_ACCESS_KEY_ID", "id")];
        insta::assert_snapshot!(problem_of(&variables), @r#"3 problems in the configuration: (1) env AWS_ACCESS_KEY_ID is set, but secret_access_key (AWS_SECRET_ACCESS_KEY) is not; set both, or neither to use the default AWS credential chain; (2) env STORAGE_URI: scheme "gs" is not supported; write s3://bucket[/key-or-prefix] (KServe's own storage initializer handles this scheme); (3) env S3_MAX_ATTEMPTS: "x" is not a whole number from 1 to 100"#);
    }

    #[test]
    fn nothing_asked_for_and_an_argument_too_few() {
        let read = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            Settings::read(&Environment::default(), &arguments).unwrap_err().to_string()
        };
        insta::assert_snapshot!(read(&[]), @"nothing to download: give SRC_URI DEST, or set env STORAGE_URI, or env STORAGE_PATH with a storage-config entry");
        insta::assert_snapshot!(read(&["s3://models/bert", ""]), @r#"argument "s3://models/bert" has no destination: sources and destinations come in pairs, SRC_URI DEST [SRC_URI DEST ...]"#);
        insta::assert_snapshot!(read(&["s3://models/bert", "/mnt/models", "s3://models/more"]), @r#"argument "s3://models/more" has no destination: sources and destinations come in pairs, SRC_URI DEST [SRC_URI DEST ...]"#);
    }
}

mod warnings {
    use super::*;

    #[test]
    fn what_is_accepted_and_worth_cleaning_up() {
        let entry =
            r#"{"endpoint_url": "minio:9000", "verify_ssl": "maybe", "region": " us-east-1\n", "acces_key_id": ""}"#;
        insta::assert_snapshot!(Given::nothing().file("only", entry).warnings(), @r#"
env STORAGE_KEY is not set: using "only", the only entry of /storage-config
storage-config entry "only" (/storage-config/only): unknown field "acces_key_id" is ignored; did you mean "access_key_id"?
storage-config entry "only" (/storage-config/only), field "endpoint_url": no scheme in the endpoint; using https://minio:9000
storage-config entry "only" (/storage-config/only), field "region": blanks or line breaks around the value are ignored; remove them
storage-config entry "only" (/storage-config/only), field "verify_ssl": "maybe" is neither true nor false; taken as true, as KServe does
"#);
        insta::assert_snapshot!(Given::variables([("STORAGE_CONFIG", "{}")]).file("default", "{}").warnings(), @"the Secret mounted at /storage-config is not read: env STORAGE_CONFIG is set and wins; remove one of the two");
        let token = [("AWS_SESSION_TOKEN", "hush"), ("AWS_SECRET_ACCESS_KEY", "hush")];
        let half = Given::variables(token).file("default", r#"{"access_key_id": "id"}"#);
        insta::assert_snapshot!(half.warnings(), @r#"
the two halves of the key pair come from different places: storage-config entry "default" (/storage-config/default), field "access_key_id"; env AWS_SECRET_ACCESS_KEY
the session token from env AWS_SESSION_TOKEN is not used: the access key comes from storage-config entry "default" (/storage-config/default), field "access_key_id"
"#);
    }

    #[test]
    fn an_override_of_half_a_pair_is_meant() {
        let secret = [("STORAGE_OVERRIDE_CONFIG", r#"{"secret_access_key": "another"}"#)];
        assert_eq!(Given::variables(secret).file("default", ENTRY).warnings(), "");
    }
}
