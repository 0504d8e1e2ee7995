//! Good archives next to bad ones: each refusal with its nearest twin that is taken.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use ::tar::{Builder, Header};
use flate2::{Compression, write::DeflateEncoder, write::GzEncoder};
use rawzip::CompressionMethod;

use super::*;

/// A staging directory and an archive beside it.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("staging")).unwrap();
        Self { directory }
    }

    fn staging(&self) -> PathBuf {
        self.directory.path().join("staging")
    }

    fn unpack(&self, kind: ArchiveKind, archive: &[u8]) -> Result<Unpacked, ArchiveError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(archive).unwrap();
        // The position is the writer's, and none of the reader's business.
        file.seek(io::SeekFrom::Start(3.min(archive.len() as u64))).unwrap();
        unpack(&file, kind, &self.staging())
    }

    /// Files with their content, directories with a slash, links with their target.
    fn tree(&self) -> BTreeMap<String, String> {
        fn collect(directory: &Path, prefix: &str, tree: &mut BTreeMap<String, String>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_symlink() {
                    tree.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
                } else if metadata.is_dir() {
                    collect(&path, &format!("{name}/"), tree);
                    tree.insert(name + "/", String::new());
                } else {
                    tree.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut tree = BTreeMap::new();
        collect(&self.staging(), "", &mut tree);
        tree
    }
}

fn tree<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.map(|(name, content)| (name.to_owned(), content.to_owned())).into()
}

/// One entry of a tar, with names that a well-meaning library would not write.
#[derive(Clone)]
struct TarEntry {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    content: Vec<u8>,
    mode: u32,
    size: Option<u64>,
}

fn entry(kind: u8, name: impl AsRef<[u8]>) -> TarEntry {
    TarEntry { kind, name: name.as_ref().to_vec(), link: Vec::new(), content: Vec::new(), mode: 0o600, size: None }
}

fn file(name: impl AsRef<[u8]>, content: &str) -> TarEntry {
    TarEntry { content: content.into(), ..entry(b'0', name) }
}

fn link(kind: u8, name: &str, target: &str) -> TarEntry {
    TarEntry { link: target.into(), ..entry(kind, name) }
}

/// PAX records: each begins with its own length.
fn records(kind: u8, records: &[(&str, &str)]) -> TarEntry {
    let mut content = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| *length == rest + length.to_string().len()).unwrap();
        content.push_str(&format!("{length} {key}={value}\n"));
    }
    TarEntry { content: content.into(), ..entry(kind, "PaxHeaders/0") }
}

impl TarEntry {
    fn write(&self, archive: &mut Vec<u8>) {
        let mut header = Header::new_ustar();
        // The library would write 0, as it was before there were kinds, as a kind.
        header.as_old_mut().linkflag = [self.kind];
        header.as_old_mut().name[..self.name.len()].copy_from_slice(&self.name);
        header.as_old_mut().linkname[..self.link.len()].copy_from_slice(&self.link);
        header.set_mode(self.mode);
        header.set_size(self.size.unwrap_or(self.content.len() as u64));
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(&self.content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
}

fn tar_without_end(entries: &[TarEntry]) -> Vec<u8> {
    let mut archive = Vec::new();
    entries.iter().for_each(|entry| entry.write(&mut archive));
    archive
}

fn tar(entries: &[TarEntry]) -> Vec<u8> {
    let mut archive = tar_without_end(entries);
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[track_caller]
fn refusal(entries: &[TarEntry]) -> String {
    let error = Bench::new().unpack(ArchiveKind::Tar, &tar(entries)).unwrap_err();
    assert!(!error.is_of_volume());
    error.to_string()
}

#[track_caller]
fn taken<const N: usize>(entries: &[TarEntry], expected: [(&str, &str); N]) {
    let bench = Bench::new();
    bench.unpack(ArchiveKind::Tar, &tar(entries)).unwrap();
    assert_eq!(bench.tree(), tree(expected));
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn xz(content: &[u8], window: u32) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.lzma_options.dict_size = window;
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A zip of entries that are stored or deflated; `mode` is stat's, with the file's type.
fn zip(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    for (name, content, mode) in entries {
        if name.ends_with('/') {
            archive.new_dir(rawzip::path::EntryPath::verbatim(name.as_bytes())).create().unwrap();
            continue;
        }
        let name = rawzip::path::EntryPath::verbatim(name.as_bytes());
        let builder = archive.new_file(name).unix_permissions(*mode);
        let (mut entry, config) = builder.compression_method(CompressionMethod::DEFLATE).start().unwrap();
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
        writer.write_all(content).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

#[track_caller]
fn zip_refusal(entries: &[(&str, &[u8], u32)]) -> String {
    Bench::new().unpack(ArchiveKind::Zip, &zip(entries)).unwrap_err().to_string()
}

const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

mod names {
    use super::*;

    #[test]
    fn the_ending_decides_what_is_an_archive() {
        for name in ["m.tar", "m.tar.gz", "m.tgz", "m.tar.bz2", "m.tar.xz", "m.tar.zst", "m.TGZ", "a.b.tar.gz"] {
            assert_eq!(ArchiveKind::of_file_name(name), Some(ArchiveKind::Tar), "{name}");
        }
        assert_eq!(ArchiveKind::of_file_name("m.zip"), Some(ArchiveKind::Zip));
        for name in ["m.gz", "m.zip.bak", "tar", ".tar", ".zip", "..zip", ".tar.gz", "m.tar.Z", "m.7z", "mtar", ""] {
            assert_eq!(ArchiveKind::of_file_name(name), None, "{name}");
        }
    }
}

mod tars {
    use super::*;

    #[test]
    fn every_compression_is_told_by_its_first_bytes() {
        let plain = tar(&[file("a/b", "one"), file("c", "two")]);
        let several = [gzip(&plain[..700]), gzip(&plain[700..])].concat();
        let frames = [zstd(&plain[..700]), b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&plain[700..])].concat();
        let archives = [plain.clone(), gzip(&plain), several, bzip2(&plain), xz(&plain, 1 << 20), zstd(&plain), frames];
        for archive in archives {
            let bench = Bench::new();
            let unpacked = bench.unpack(ArchiveKind::Tar, &archive).unwrap();
            assert_eq!(unpacked, Unpacked { files: 2, bytes: 6, links: 0 });
            assert_eq!(bench.tree(), tree([("a/", ""), ("a/b", "one"), ("c", "two")]));
        }
    }

    #[test]
    fn a_window_of_128_mib_is_the_largest() {
        let plain = tar(&[file("a", "one")]);
        assert!(Bench::new().unpack(ArchiveKind::Tar, &xz(&plain, 64 << 20)).is_ok());
        let error = Bench::new().unpack(ArchiveKind::Tar, &xz(&plain, 256 << 20)).unwrap_err();
        insta::assert_snapshot!(error, @"the archive cannot be unpacked: it was packed with a window of more than 128 MiB; pack it with a smaller one");
        // A frame header with a window of 1 GiB: magic, no flags, exponent 20.
        let error = Bench::new().unpack(ArchiveKind::Tar, &[0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3]).unwrap_err();
        insta::assert_snapshot!(error, @"the archive cannot be unpacked: it was packed with a window of more than 128 MiB; pack it with a smaller one");
    }

    #[test]
    fn what_common_tools_write_is_taken() {
        // `tar -C model .`, directories with and without a slash, an empty one, an old header's.
        let entries = [entry(b'5', "./"), entry(b'5', "./d/"), entry(b'5', "e"), file("./d/x", "1"), entry(0, "o/")];
        taken(&entries, [("d/", ""), ("d/x", "1"), ("e/", ""), ("o/", "")]);
        // A directory may be said twice, and its files before it.
        taken(&[file("d/x", "1"), entry(b'5', "d"), entry(b'5', "d/")], [("d/", ""), ("d/x", "1")]);
        taken(&[], []);
    }

    #[test]
    fn long_names_arrive_whole_from_gnu_and_from_posix() {
        let long = "n".repeat(120) + "/" + &"m".repeat(120);
        let bench = Bench::new();
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(3);
        builder.append_data(&mut header, &long, &b"gnu"[..]).unwrap();
        bench.unpack(ArchiveKind::Tar, &builder.into_inner().unwrap()).unwrap();
        assert_eq!(bench.tree()[&long], "gnu");

        let entries = [records(b'x', &[("path", &long)]), file("short", "pax")];
        let bench = Bench::new();
        bench.unpack(ArchiveKind::Tar, &tar(&entries)).unwrap();
        assert_eq!(bench.tree()[&long], "pax");
    }

    #[test]
    fn a_size_that_only_posix_records_hold_is_the_size() {
        let records = records(b'x', &[("size", "5"), ("comment", "two\nlines")]);
        let big = TarEntry { size: Some(0), ..file("a", "12345") };
        taken(&[records, big, file("b", "")], [("a", "12345"), ("b", "")]);
    }

    #[test]
    fn a_comment_for_all_entries_is_taken_and_a_path_for_all_is_not() {
        taken(&[records(b'g', &[("comment", "x")]), file("a", "1")], [("a", "1")]);
        insta::assert_snapshot!(refusal(&[records(b'g', &[("path", "x")]), file("a", "1")]), @r#"the archive cannot be unpacked: its global PAX header sets "path" for every entry"#);
    }

    #[test]
    fn names_that_would_leave_the_destination_are_refused() {
        insta::assert_snapshot!(refusal(&[file("../a", "1")]), @r#"entry "../a" of the archive is refused: its segment ".." would lead elsewhere; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file("a/../../b", "1")]), @r#"entry "a/../../b" of the archive is refused: its segment ".." would lead elsewhere; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file("/etc/passwd", "1")]), @r#"entry "/etc/passwd" of the archive is refused: it begins with a slash; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file(".storage-initializer/a", "1")]), @r#"entry ".storage-initializer/a" of the archive is refused: its first segment ".storage-initializer" is the storage initializer's own directory; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file(b"a\xff", "1")]), @r#"entry "a�" of the archive is refused: its name is not UTF-8; pack the archive without it"#);
        taken(&[file("..a/...", "1")], [("..a/", ""), ("..a/...", "1")]);
        taken(&[file("d/.storage-initializer", "1")], [("d/", ""), ("d/.storage-initializer", "1")]);
    }

    #[test]
    fn two_entries_of_one_name_are_refused() {
        insta::assert_snapshot!(refusal(&[file("a", "1"), file("./a", "2")]), @r#"entry "a" of the archive is refused: another entry has the same name; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file("a", "1"), file("a/b", "2")]), @r#"entry "a/b" of the archive is refused: "a", which is above it, is a file or a link in the same archive; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file("a/b", "1"), file("a", "2")]), @r#"entry "a" of the archive is refused: another entry has the same name; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file("a", "1"), entry(b'5', "a")]), @r#"entry "a" of the archive is refused: another entry has the same name; pack the archive without it"#);
        taken(&[file("a", "1"), file("A", "2")], [("A", "2"), ("a", "1")]);
    }

    #[test]
    fn links_that_stay_inside_are_kept_and_others_are_refused() {
        let blob = || file("blobs/1", "weights");
        taken(
            &[blob(), link(b'2', "snapshots/main/model.bin", "../../blobs/1"), link(b'2', "latest", "snapshots/main")],
            [
                ("blobs/", ""),
                ("blobs/1", "weights"),
                ("latest", "-> snapshots/main"),
                ("snapshots/", ""),
                ("snapshots/main/", ""),
                ("snapshots/main/model.bin", "-> ../../blobs/1"),
            ],
        );
        insta::assert_snapshot!(refusal(&[link(b'2', "d/a", "../../x")]), @r#"entry "d/a" of the archive is refused: it is a symbolic link to "../../x", which may lead out of the destination; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[link(b'2', "a", "/etc/passwd")]), @r#"entry "a" of the archive is refused: it is a symbolic link to "/etc/passwd", which may lead out of the destination; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[link(b'2', "a", "")]), @r#"entry "a" of the archive is refused: it is a symbolic link to "", which may lead out of the destination; pack the archive without it"#);
        // `d/up` is the root, so `d/up/..` would be above it.
        insta::assert_snapshot!(refusal(&[link(b'2', "d/up", ".."), link(b'2', "a", "d/up/..")]), @r#"entry "a" of the archive is refused: it is a symbolic link to "d/up/..", which may lead out of the destination; pack the archive without it"#);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        insta::assert_snapshot!(refusal(&[entry(b'5', "d"), link(b'2', "l", "d"), file("l/x", "1")]), @r#"entry "l/x" of the archive is refused: "l", which is above it, is a file or a link in the same archive; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[link(b'2', "l", "d"), file("l", "1")]), @r#"entry "l" of the archive is refused: another entry has the same name; pack the archive without it"#);
        taken(&[entry(b'5', "d"), file("d/x", "1"), link(b'2', "l", "d")], [("d/", ""), ("d/x", "1"), ("l", "-> d")]);
    }

    #[test]
    fn a_hard_link_needs_a_file_that_came_before_it() {
        taken(&[file("a", "1"), link(b'1', "d/b", "./a")], [("a", "1"), ("d/", ""), ("d/b", "1")]);
        insta::assert_snapshot!(refusal(&[link(b'1', "b", "a"), file("a", "1")]), @r#"entry "b" of the archive is refused: it is a hard link to "a", which is no file that came before it; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[link(b'1', "b", "../a")]), @r#"entry "b" of the archive is refused: it is a hard link to "../a", which is no file that came before it; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[link(b'2', "s", "x"), link(b'1', "b", "s")]), @r#"entry "b" of the archive is refused: it is a hard link to "s", which is no file that came before it; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[entry(b'5', "d"), link(b'1', "b", "d")]), @r#"entry "b" of the archive is refused: it is a hard link to "d", which is no file that came before it; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[file("a", "1"), file("b", "2"), link(b'1', "b", "a")]), @r#"entry "b" of the archive is refused: another entry has the same name; pack the archive without it"#);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for kind in [b'3', b'4', b'6'] {
            assert_eq!(
                refusal(&[entry(kind, "dev")]),
                "entry \"dev\" of the archive is refused: it is a device, a pipe or a socket; pack the archive without it"
            );
        }
        insta::assert_snapshot!(refusal(&[entry(b'V', "volume")]), @r#"entry "volume" of the archive is refused: it is of kind 'V', which has no place in a model; pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[entry(b'S', "holes")]), @r#"entry "holes" of the archive is refused: it is a sparse file (tar --sparse); pack the archive without it"#);
        insta::assert_snapshot!(refusal(&[records(b'x', &[("GNU.sparse.major", "1")]), file("holes", "1")]), @r#"entry "holes" of the archive is refused: it is a sparse file (tar --sparse); pack the archive without it"#);
        taken(&[entry(b'7', "contiguous")], [("contiguous", "")]);
    }

    #[test]
    fn of_the_mode_only_the_owners_right_to_execute_is_taken() {
        let mode = |name: &str, mode| TarEntry { mode, ..file(name, "1") };
        let bench = Bench::new();
        let entries = [mode("secret", 0o600), mode("setuid", 0o4777), mode("nothing", 0), mode("group", 0o010)];
        bench.unpack(ArchiveKind::Tar, &tar(&entries)).unwrap();
        let modes = ["secret", "setuid", "nothing", "group"]
            .map(|name| fs::metadata(bench.staging().join(name)).unwrap().permissions().mode() & 0o7777);
        assert_eq!(modes, [0o644, 0o755, 0o644, 0o644]);
    }

    #[test]
    fn an_archive_that_is_cut_off_is_damaged_wherever_the_cut_is() {
        let whole = tar(&[file("a", "one"), file("b", &"two".repeat(300))]);
        let end = whole.len() - 1024;
        for cut in [1, 100, 512, 513, 1024, 1500, 2047, end] {
            let error = Bench::new().unpack(ArchiveKind::Tar, &whole[..cut]).unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged(_)), "{cut}: {error}");
        }
        // One block of zeros is enough of an end.
        assert!(Bench::new().unpack(ArchiveKind::Tar, &whole[..end + 512]).is_ok());
        for packed in [gzip(&whole), bzip2(&whole), xz(&whole, 1 << 20), zstd(&whole)] {
            assert!(Bench::new().unpack(ArchiveKind::Tar, &packed).is_ok());
            for cut in [packed.len() - 1, packed.len() / 2, 7] {
                let error = Bench::new().unpack(ArchiveKind::Tar, &packed[..cut]).unwrap_err();
                assert!(matches!(error, ArchiveError::Damaged(_)), "{cut}: {error}");
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_damage() {
        let whole = tar(&[file("a", "one")]);
        for mut packed in [gzip(&whole), bzip2(&whole), xz(&whole, 1 << 20), zstd(&whole)] {
            // The last bytes are checksums: gzip's and bzip2's of the content, xz's of its index.
            let at = packed.len() - if packed.starts_with(b"\x1f\x8b") { 5 } else { 2 };
            packed[at] ^= 0x10;
            let result = Bench::new().unpack(ArchiveKind::Tar, &packed);
            assert!(matches!(result, Err(ArchiveError::Damaged(_))), "{:x?}: {result:?}", &packed[..4]);
        }
        let mut headers = whole.clone();
        headers[0] = b'b';
        insta::assert_snapshot!(Bench::new().unpack(ArchiveKind::Tar, &headers).unwrap_err(), @"the archive is damaged: it is not a tar, nor one compressed with gzip, bzip2, xz or zstd; pack and upload it again");
        let mut second = tar(&[file("a", "one"), file("b", "two")]);
        second[1024] = b'c';
        insta::assert_snapshot!(Bench::new().unpack(ArchiveKind::Tar, &second).unwrap_err(), @"the archive is damaged: the header of an entry has the wrong checksum; pack and upload it again");
        insta::assert_snapshot!(Bench::new().unpack(ArchiveKind::Tar, b"").unwrap_err(), @"the archive is damaged: it is cut off: it has no mark of its end; pack and upload it again");
    }

    #[test]
    fn a_bomb_is_a_volume_that_is_too_small() {
        let bomb = TarEntry { size: Some(1 << 40), ..file("zeros", "") };
        let error = Bench::new().unpack(ArchiveKind::Tar, &gzip(&tar(&[bomb]))).unwrap_err();
        assert!(matches!(error, ArchiveError::Volume(VolumeError::TooSmall { .. })), "{error}");
        assert!(error.is_of_volume());
    }

    #[test]
    fn records_in_front_of_an_entry_have_a_bound() {
        let records = |size| TarEntry { content: vec![b'n'; size], ..entry(b'L', "././@LongLink") };
        insta::assert_snapshot!(refusal(&[records((1 << 20) + 1), file("a", "1")]), @"the archive is damaged: the records in front of an entry take 1048577 bytes; 1048576 are the most; pack and upload it again");
        let error = Bench::new().unpack(ArchiveKind::Tar, &tar(&[records(1 << 20), file("a", "1")])).unwrap_err();
        assert!(matches!(error, ArchiveError::Entry { reason: EntryRefusal::Path(_), .. }));
        let malformed = TarEntry { content: "99 path=x\n".into(), ..entry(b'x', "p") };
        insta::assert_snapshot!(refusal(&[malformed, file("a", "1")]), @"the archive is damaged: a PAX record in it is malformed; pack and upload it again");
    }
}

mod zips {
    use super::*;

    #[test]
    fn files_directories_and_links_that_stay_inside_are_taken() {
        let bench = Bench::new();
        let program = 0o100_700;
        let entries: [(&str, &[u8], u32); 5] = [
            ("d/", b"", 0),
            ("d/a", b"one", FILE),
            ("run", b"two", program),
            ("l", b"d/a", LINK),
            ("empty", b"", FILE),
        ];
        let unpacked = bench.unpack(ArchiveKind::Zip, &zip(&entries)).unwrap();
        assert_eq!(unpacked, Unpacked { files: 3, bytes: 6, links: 1 });
        let expected = [("d/", ""), ("d/a", "one"), ("empty", ""), ("l", "-> d/a"), ("run", "two")];
        assert_eq!(bench.tree(), tree(expected));
        assert_eq!(fs::metadata(bench.staging().join("run")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(Bench::new().unpack(ArchiveKind::Zip, &zip(&[])).unwrap(), Unpacked::default());
    }

    #[test]
    fn a_stored_entry_without_a_descriptor_is_taken() {
        // As Python's `zipfile` writes it.
        let stored = b"PK\x03\x04\x14\0\0\0\0\0\0\0!\0\xf1\x86\x6c\x7a\x03\0\0\0\x03\0\0\0\x01\0\0\0aonePK\x01\x02\x14\x03\x14\0\0\0\0\0\0\0!\0\xf1\x86\x6c\x7a\x03\0\0\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x80\x01\0\0\0\0aPK\x05\x06\0\0\0\0\x01\0\x01\0/\0\0\0\"\0\0\0\0\0";
        let bench = Bench::new();
        bench.unpack(ArchiveKind::Zip, stored).unwrap();
        assert_eq!(bench.tree(), tree([("a", "one")]));
    }

    #[test]
    fn names_and_links_that_would_leave_the_destination_are_refused() {
        insta::assert_snapshot!(zip_refusal(&[("../a", b"1", FILE)]), @r#"entry "../a" of the archive is refused: its segment ".." would lead elsewhere; pack the archive without it"#);
        insta::assert_snapshot!(zip_refusal(&[("/a", b"1", FILE)]), @r#"entry "/a" of the archive is refused: it begins with a slash; pack the archive without it"#);
        insta::assert_snapshot!(zip_refusal(&[("a\0.txt", b"1", FILE)]), @r#"entry "a\0.txt" of the archive is refused: it holds a NUL character; pack the archive without it"#);
        insta::assert_snapshot!(zip_refusal(&[("l", b"../a", LINK)]), @r#"entry "l" of the archive is refused: it is a symbolic link to "../a", which may lead out of the destination; pack the archive without it"#);
        insta::assert_snapshot!(zip_refusal(&[("l", b"d", LINK), ("l/x", b"1", FILE)]), @r#"entry "l/x" of the archive is refused: "l", which is above it, is a file or a link in the same archive; pack the archive without it"#);
        insta::assert_snapshot!(zip_refusal(&[("a", b"1", FILE), ("a", b"2", FILE)]), @r#"entry "a" of the archive is refused: another entry has the same name; pack the archive without it"#);
        insta::assert_snapshot!(zip_refusal(&[("pipe", b"", 0o010_644)]), @r#"entry "pipe" of the archive is refused: it is a device, a pipe or a socket; pack the archive without it"#);
    }

    #[test]
    fn a_name_is_refused_before_the_first_file_is_written() {
        let bench = Bench::new();
        bench.unpack(ArchiveKind::Zip, &zip(&[("a", b"1", FILE), ("../b", b"2", FILE)])).unwrap_err();
        assert_eq!(bench.tree(), tree([]));
    }

    #[test]
    fn encryption_and_rare_compression_are_named() {
        let with = |at_local: usize, at_directory: usize, value: u8| {
            let mut archive = zip(&[("a", b"one", FILE)]);
            let directory = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
            archive[at_local] |= value;
            archive[directory + at_directory] |= value;
            Bench::new().unpack(ArchiveKind::Zip, &archive).unwrap_err().to_string()
        };
        insta::assert_snapshot!(with(6, 8, 1), @r#"entry "a" of the archive is refused: it is encrypted; pack the archive without it"#);
        insta::assert_snapshot!(with(8, 10, 12), @r#"entry "a" of the archive is refused: its compression method 12 is neither stored nor deflated; pack the archive without it"#);
    }

    #[test]
    fn damage_is_found() {
        let whole = zip(&[("a", &b"one".repeat(1000), FILE), ("b", b"two", FILE)]);
        assert!(Bench::new().unpack(ArchiveKind::Zip, &whole).is_ok());
        for cut in [1, 30, whole.len() / 2, whole.len() - 1] {
            let error = Bench::new().unpack(ArchiveKind::Zip, &whole[..cut]).unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged(_)), "{cut}: {error}");
        }
        let directory = whole.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        // The CRC, and the uncompressed length, one byte each.
        for (field, change) in [(16, 1), (24, 1), (25, 0x80)] {
            let mut damaged = whole.clone();
            damaged[directory + field] ^= change;
            let error = Bench::new().unpack(ArchiveKind::Zip, &damaged).unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged(_)), "{field}: {error}");
        }
        insta::assert_snapshot!(Bench::new().unpack(ArchiveKind::Zip, b"not a zip").unwrap_err(), @"the archive is damaged: it is not a zip, or its end is cut off; pack and upload it again");
        insta::assert_snapshot!(Bench::new().unpack(ArchiveKind::Zip, b"").unwrap_err(), @"the archive is damaged: it is not a zip, or its end is cut off; pack and upload it again");
    }

    #[test]
    fn a_bomb_is_a_volume_that_is_too_small() {
        // Stored twice: 4 GiB less one byte is the most without zip64, and a thousand of them are more than a volume.
        let names: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
        let entries: Vec<(&str, &[u8], u32)> = names.iter().map(|name| (name.as_str(), &b""[..], FILE)).collect();
        let mut bomb = zip(&entries);
        let mut at = 0;
        while let Some(found) = bomb[at..].windows(4).position(|window| window == b"PK\x01\x02") {
            at += found + 24;
            bomb[at..at + 4].copy_from_slice(&0xffff_fffeu32.to_le_bytes());
        }
        let error = Bench::new().unpack(ArchiveKind::Zip, &bomb).unwrap_err();
        assert!(matches!(error, ArchiveError::Volume(VolumeError::TooSmall { .. })), "{error}");
    }
}

mod final_names {
    use super::*;

    struct Volume {
        directory: tempfile::TempDir,
    }

    impl Volume {
        fn new(staged: &[&str]) -> Self {
            let volume = Self { directory: tempfile::tempdir().unwrap() };
            fs::create_dir_all(volume.staging()).unwrap();
            for path in staged {
                let path = volume.staging().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "new").unwrap();
            }
            volume
        }

        fn root(&self) -> PathBuf {
            self.directory.path().join("models")
        }

        fn staging(&self) -> PathBuf {
            self.root().join(".storage-initializer/0.tree")
        }

        fn publish(&self) -> Result<(), VolumeError> {
            publish_tree(&self.staging(), &self.root())
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.root().join(path)).unwrap()
        }
    }

    #[test]
    fn everything_moves_and_what_was_there_beside_it_stays() {
        let volume = Volume::new(&["a", "d/x", "e/f/y"]);
        fs::create_dir(volume.root().join("d")).unwrap();
        fs::write(volume.root().join("d/old"), "old").unwrap();
        fs::write(volume.root().join("a"), "old").unwrap();
        std::os::unix::fs::symlink("a", volume.staging().join("l")).unwrap();
        volume.publish().unwrap();
        assert_eq!(
            ["a", "d/x", "e/f/y", "l", "d/old"].map(|path| volume.read(path)),
            ["new", "new", "new", "new", "old"]
        );
    }

    #[test]
    fn a_link_under_a_files_name_is_replaced_and_not_followed() {
        let volume = Volume::new(&["a"]);
        let outside = volume.directory.path().join("outside");
        fs::write(&outside, "old").unwrap();
        std::os::unix::fs::symlink(&outside, volume.root().join("a")).unwrap();
        volume.publish().unwrap();
        assert_eq!((volume.read("a"), fs::read_to_string(outside).unwrap()), ("new".to_owned(), "old".to_owned()));
    }

    #[test]
    fn what_is_in_the_way_is_found_before_the_first_file_moves() {
        for (is_link, expected) in [(false, "a file"), (true, "a symbolic link")] {
            let volume = Volume::new(&["a", "d/x"]);
            match is_link {
                true => std::os::unix::fs::symlink("/", volume.root().join("d")).unwrap(),
                false => fs::write(volume.root().join("d"), "").unwrap(),
            }
            let error = volume.publish().unwrap_err();
            assert!(matches!(error, VolumeError::NotADirectory { found, .. } if found == expected), "{error}");
            assert!(!volume.root().join("a").exists());
        }
        let volume = Volume::new(&["a", "b"]);
        fs::create_dir(volume.root().join("b")).unwrap();
        assert!(matches!(volume.publish().unwrap_err(), VolumeError::IsADirectory(_)));
        assert!(!volume.root().join("a").exists());
    }
}
