//! Cases from a seed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::case::{Archive, ArchiveEntry, Case, Content, Endpoint, Keys, Pair, Trust};

/// Names of files and directories: what people use, and what they did not think of.
const NAMES: [&str; 24] = [
    "model",
    "model2",
    "model-large",
    "config.json",
    "weights.bin",
    "model.safetensors",
    "1",
    "sub",
    "tokenizer.json",
    "README.md",
    "a b",
    "ä",
    "模型",
    "x+y",
    "%41",
    "...",
    "..a",
    "a.",
    "C:x",
    "back\\slash",
    "~",
    "amp&",
    "'quoted'",
    "[br]*",
];

/// Patterns as people write them.
const PATTERNS: [&str; 14] = [
    "*.json",
    r#"["*.json"]"#,
    "*.bin,*.json",
    r#"["*.safetensors", "*.bin"]"#,
    "*",
    "sub/*",
    r#"["model*"]"#,
    "[a-m]*",
    "?",
    "",
    r#""*.json""#,
    " *.json , *.md ",
    "[!.]*",
    r#"["*/1", "1"]"#,
];

/// How many kinds of configuration there are.
const KINDS: usize = 26;

/// A source of cases. SplitMix64 (Steele, Lea, Flood, 2014): small, and the same everywhere.
pub struct Generator {
    state: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The next case. Every third is about its configuration, the others about keys; both at once would hide each other.
    pub fn case(&mut self, number: usize) -> Case {
        let mut case = Case {
            number,
            pairs: Vec::new(),
            in_entry: self.once_in(2),
            trust: Trust::Variable,
            keys: Keys::Good,
            plain: self.once_in(4),
            fields: Map::new(),
            overrides: Map::new(),
            variables: BTreeMap::new(),
            endpoint: Endpoint::Full,
        };
        if number.is_multiple_of(3) {
            case.pairs.push(self.simple_pair());
            self.configure(&mut case);
        } else {
            let odd = (number % 12 == 1 || number % 12 == 5).then_some(number / 6);
            let pairs = if self.once_in(6) { 2 } else { 1 };
            for _ in 0..pairs {
                let mut pair = self.pair(odd.filter(|_| case.pairs.is_empty()));
                // Some share their destination.
                pair.destination = if self.once_in(2) { 0 } else { case.pairs.len() };
                case.pairs.push(pair);
            }
            // What patterns take away from a refusal is for the unit tests of both.
            if odd.is_none() && pairs == 1 && self.once_in(3) {
                self.filter(&mut case);
            }
        }
        case
    }

    fn simple_pair(&mut self) -> Pair {
        let names = ["bert/config.json", "bert/weights.bin", "bert/1/model.onnx"];
        let objects = names.iter().map(|key| ((*key).to_owned(), Content::Small(self.next()))).collect();
        let path = self.choose(&["/bert", "/bert/", "/bert/weights.bin", "/bert/1", "", "/", "//bert"]);
        Pair { objects, path: path.to_owned(), destination: 0 }
    }

    fn pair(&mut self, odd: Option<usize>) -> Pair {
        let mut objects = BTreeMap::new();
        for _ in 0..1 + self.below(7) {
            let key = self.key();
            let content = match self.below(12) {
                // An odd key is odd enough.
                0 | 1 if odd.is_none() => Content::Empty,
                2 if self.once_in(3) => Content::Large(self.next()),
                _ => Content::Small(self.next()),
            };
            objects.insert(key, content);
        }
        if odd.is_none() && self.once_in(5) {
            objects.insert(self.key() + "/", Content::Empty);
        }
        let mut path = self.path(&objects);
        if let Some(kind) = odd {
            self.make_odd(kind, &mut objects, &mut path);
        }
        Pair { objects, path, destination: 0 }
    }

    fn key(&mut self) -> String {
        let depth = 1 + self.below(3);
        // Mostly few names, so that prefixes meet.
        let names: Vec<&str> =
            (0..depth).map(|_| if self.once_in(4) { self.choose(&NAMES) } else { self.choose(&NAMES[..8]) }).collect();
        names.join("/")
    }

    /// A whole key, a part of one, with and without a slash; something else now and then.
    fn path(&mut self, objects: &BTreeMap<String, Content>) -> String {
        let keys: Vec<&String> = objects.keys().collect();
        let key = keys[self.below(keys.len())].clone();
        let segments: Vec<&str> = key.split('/').collect();
        let some = segments[..1 + self.below(segments.len())].join("/");
        match self.below(12) {
            0 => String::new(),
            1 => "/".to_owned(),
            2 => format!("/{}", key.chars().take(3).collect::<String>().trim_end_matches('/')),
            3 => "/no/such/thing".to_owned(),
            4 => format!("//{some}"),
            5 | 6 => format!("/{key}"),
            7 | 8 => format!("/{some}/"),
            _ => format!("/{some}"),
        }
    }

    /// Keys that a bucket can hold and a file system cannot, or should not.
    fn make_odd(&mut self, kind: usize, objects: &mut BTreeMap<String, Content>, path: &mut String) {
        let content = Content::Small(self.next());
        match kind % 9 {
            0 => drop(objects.insert("model/../escaped".to_owned(), content)),
            1 => drop(objects.insert("model/sub/./x".to_owned(), content)),
            2 => drop(objects.insert(".storage-initializer/x".to_owned(), content)),
            3 => {
                objects.insert("model/a//b".to_owned(), content.clone());
                objects.insert("model/a/b".to_owned(), content);
            }
            4 => {
                objects.insert("model/file".to_owned(), content.clone());
                objects.insert("model/file/below".to_owned(), content);
            }
            5 => drop(objects.insert("model/a//c".to_owned(), content)),
            6 => drop(objects.insert("/begins".to_owned(), content)),
            7 => drop(objects.insert(format!("model/{}", "n".repeat(256)), content)),
            _ => {
                let name = self.choose(&["what?", "no#1", "a?b#c"]);
                objects.insert(format!("{name}/x"), content);
                *path = format!("/{name}");
                return;
            }
        }
        *path = self.choose(&["", "/model", "/model/"]).to_owned();
    }

    fn filter(&mut self, case: &mut Case) {
        for name in ["STORAGE_ALLOW_PATTERNS", "STORAGE_IGNORE_PATTERNS"] {
            if self.once_in(2) {
                case.variables.insert(name.to_owned(), self.choose(&PATTERNS).to_owned());
            }
        }
    }

    fn configure(&mut self, case: &mut Case) {
        let mut variable = |name: &str, value: &str| drop(case.variables.insert(name.to_owned(), value.to_owned()));
        // Each kind as often as the others, so that every difference is met.
        let turn = case.number / (3 * KINDS);
        let kind = case.number / 3 % KINDS;
        match kind {
            0..=3 => {
                let trust = [
                    Trust::Entry,
                    Trust::ConfigMap,
                    Trust::Certificate,
                    Trust::Nothing,
                    Trust::MissingFile,
                    Trust::EmptyEntry,
                    Trust::Broken,
                ];
                case.trust = in_turn(4 * turn + kind, &trust);
                // An empty path of a bundle has its effect without TLS, too.
                case.plain = case.trust == Trust::EmptyEntry && turn.is_multiple_of(2);
                case.in_entry |= matches!(case.trust, Trust::Entry | Trust::EmptyEntry | Trust::Certificate);
            }
            4 | 5 => case.keys = in_turn(turn, &[Keys::WrongSecret, Keys::Unknown]),
            6 => case.keys = Keys::Temporary,
            7 => {
                case.keys = Keys::WithoutList;
                "/bert/weights.bin".clone_into(&mut case.pairs[0].path);
            }
            8 => case.keys = Keys::WithoutList,
            9 => case.endpoint = Endpoint::Slash,
            10 => {
                case.endpoint = Endpoint::Bare;
                case.plain = false;
            }
            11 | 12 => {
                case.in_entry = true;
                let (field, value) = self.choose_field();
                case.fields.insert(field.to_owned(), value);
            }
            13 | 14 => {
                let (field, value) = self.choose_field();
                case.in_entry = true;
                case.overrides.insert(field.to_owned(), value);
            }
            15 => {
                // Where an entry does not count, the variables do.
                let kind = in_turn(turn, &["", "gcs", "S3"]);
                case.in_entry = kind.is_empty();
                case.fields.insert("type".to_owned(), kind.into());
            }
            16 => {
                case.in_entry = true;
                let blank = in_turn(turn, &["good\n", " good", "good "]);
                case.fields.insert("access_key_id".to_owned(), blank.into());
            }
            17 => {
                // Without a certificate that would be right.
                case.trust = Trust::Nothing;
                case.plain = false;
                variable("S3_VERIFY_SSL", in_turn(turn, &["0", "false", "False", "true", "1", "no", ""]));
            }
            18 => variable("awsAnonymousCredential", in_turn(turn, &["true", "1", "false", "0", "yes", ""])),
            19 => variable("S3_READ_TIMEOUT", in_turn(turn, &["30", "2.5", "soon", "-1"])),
            20 => variable("S3_CONNECT_TIMEOUT", in_turn(turn, &["15", "1", "soon", ""])),
            21 => variable("S3_MAX_ATTEMPTS", in_turn(turn, &["1", "5", "many"])),
            22 => variable("S3_MAX_FILE_CONCURRENCY", in_turn(turn, &["1", "2", "8", "all", "0"])),
            23 => variable("STORAGE_CONFIG", self.choose(&["{", "[]", "\"text\"", "{\"type\": \"s3\",}", "null"])),
            24 => variable("STORAGE_OVERRIDE_CONFIG", in_turn(turn, &["{}", "{", "{\"unknown_field\": \"x\"}"])),
            _ => variable(
                in_turn(turn, &["STORAGE_ALLOW_PATTERNS", "STORAGE_IGNORE_PATTERNS"]),
                self.choose(&["['*.json']", "[null]", r#"["*.json", 1]"#, "1"]),
            ),
        }
    }

    fn choose_field(&mut self) -> (&'static str, Value) {
        let fields = [
            ("verify_ssl", json!(true)),
            ("verify_ssl", json!(false)),
            ("verify_ssl", json!("0")),
            ("verify_ssl", json!("true")),
            ("anonymous", json!(false)),
            ("anonymous", json!(true)),
            ("anonymous", json!("true")),
            ("anonymous", json!("false")),
            ("anonymous", Value::Null),
            ("region", json!("us-east-1")),
            ("region", Value::Null),
            ("secret_access_key", json!("another")),
            ("secret_access_key", json!("good-secret")),
            ("bucket", json!("ignored")),
            ("cabundle_configmap", json!("webhook-only")),
            ("unknown_field", json!("x")),
        ];
        fields[self.below(fields.len())].clone()
    }
}

/// One after the other, so that none is left out by chance.
fn in_turn<T: Copy>(turn: usize, from: &[T]) -> T {
    from[turn % from.len()]
}

/// Archives by their object's name: each form, and each thing that may be in one.
pub fn archives() -> Vec<(&'static str, Archive)> {
    let entry = |kind, name, content| ArchiveEntry { name, kind, content };
    let file = |name, content| entry("file", name, content);
    let model = || vec![file("config.json", "{}"), file("./weights/part-1", "bytes"), entry("directory", "empty", "")];
    let archive = |form, entries| Archive { form, entries, cut_bytes: 0 };
    let mut archives = vec![
        ("model.tar", archive("tar", model())),
        ("model.tar.gz", archive("tar.gz", model())),
        ("model.tgz", archive("tar.gz", model())),
        ("MODEL.TGZ", archive("tar.gz", model())),
        ("model.tar.bz2", archive("tar.bz2", model())),
        ("model.tar.xz", archive("tar.xz", model())),
        ("model.txz", archive("tar.xz", model())),
        ("model.tar.zst", archive("tar.zst", model())),
        ("model.zip", archive("zip", model())),
        ("bzip2.zip", archive("zip-bzip2", model())),
        // The first bytes count, and not the name.
        ("really-gzip.tar", archive("tar.gz", model())),
        ("really-plain.tgz", archive("tar", model())),
        ("really-a-tar.zip", archive("tar", model())),
        // No archives by their names.
        ("model.gz", archive("tar.gz", model())),
        ("model.tar.gz.bak", archive("tar.gz", model())),
        ("nothing.tar", archive("tar", Vec::new())),
        ("nothing.zip", archive("zip", Vec::new())),
    ];
    let sets = [
        vec![file("../escaped", "x")],
        vec![file("a/../b", "x")],
        vec![file("/absolute", "x")],
        vec![file("twice", "x"), file("twice", "y")],
        vec![file("a", "x"), entry("symlink", "b", "a")],
        vec![file("d/a", "x"), entry("symlink", "e/b", "../d/a")],
        vec![file("d/a", "x"), entry("symlink", "b", "d/../d/a")],
        vec![entry("symlink", "b", "../../etc/passwd")],
        vec![entry("symlink", "b", "/etc/passwd")],
        vec![entry("directory", "d", ""), entry("symlink", "l", "d"), file("l/x", "x")],
        vec![file("a", "x"), file("a/b", "y")],
        vec![file(".storage-initializer/x", "x")],
        vec![file("\u{6a21}\u{578b}.bin", "x"), file("a b", "y")],
    ];
    for entries in sets {
        archives.push(("odd.tar.gz", archive("tar.gz", entries.clone())));
        archives.push(("odd.zip", archive("zip", entries)));
    }
    archives.push(("linked.tar", archive("tar", vec![file("a", "x"), entry("link", "b", "a")])));
    archives.push(("pipe.tar", archive("tar", vec![entry("pipe", "p", "")])));
    let cut = |form, cut_bytes| Archive { cut_bytes, ..archive(form, model()) };
    // Python fills up a record of 10 KiB.
    archives.push(("no-end.tar", cut("tar", 10_240 - 4 * 512 - 512)));
    archives.push(("half.tar", cut("tar", 10_240 - 700)));
    archives.push(("half.tar.gz", cut("tar.gz", 40)));
    archives.push(("half.zip", cut("zip", 10)));
    archives
}

/// A case that is about an archive: as the exact object, or all that is below a prefix.
pub fn of_archive(number: usize, name: &str, archive: Archive) -> Case {
    let mut objects = BTreeMap::from([(format!("bert/1/{name}"), Content::Archive(archive))]);
    // Beside another object it stays what it is.
    if number.is_multiple_of(7) {
        objects.insert("bert/1/README.md".to_owned(), Content::Small(number as u64));
    }
    let path = match number % 3 {
        0 => format!("/bert/1/{name}"),
        1 => "/bert".to_owned(),
        _ => "/bert/1/".to_owned(),
    };
    Case {
        number,
        pairs: vec![Pair { objects, path, destination: 0 }],
        in_entry: false,
        trust: Trust::Variable,
        keys: Keys::Good,
        plain: false,
        fields: Map::new(),
        overrides: Map::new(),
        variables: BTreeMap::new(),
        endpoint: Endpoint::Full,
    }
}
