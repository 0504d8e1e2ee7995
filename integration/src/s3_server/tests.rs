//! The server as a client sees it, over real connections.

mod faults;

use super::test_client::Ask;
use super::*;
use crate::pki::{Authority, LeafSpec};

fn public() -> S3Server {
    S3Server::builder().plain().public_bucket("models").start()
}

fn private(key: AccessKey) -> S3Server {
    let server = S3Server::builder().plain().credentials(key).bucket("models").start();
    server.put("models", "a", Object::text("alpha"));
    server
}

#[test]
fn tls_serves_whom_the_authority_allows_and_records_who_refuses() {
    let root = Authority::new("Fresh Root");
    let leaf = root.intermediate("Issuing CA").issue(LeafSpec::new());
    let server = S3Server::builder().identity(leaf.identity()).public_bucket("models").start();
    server.put("models", "a", Object::text("alpha"));
    assert!(server.endpoint().starts_with("https://localhost:"));
    assert_eq!(Ask::get("/models/a").trusting(root.der()).send(&server).text(), "alpha");

    let stranger = Authority::new("Another Root");
    Ask::get("/models/a").trusting(stranger.der()).try_send(&server).unwrap_err();
    // A third, good exchange makes sure that the server has read the alert of the second.
    server.replace_identity(stranger.issue(LeafSpec::new()).identity());
    assert_eq!(Ask::get("/models/a").trusting(stranger.der()).send(&server).text(), "alpha");
    assert_eq!((server.connections(), server.requests().len()), (3, 2));
}

#[test]
fn each_tls_version_can_be_the_only_one() {
    let root = Authority::new("Fresh Root");
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let identity = root.issue(LeafSpec::new()).identity();
        let server = S3Server::builder().identity(identity).tls_versions(versions).public_bucket("models").start();
        assert_eq!(Ask::new("HEAD", "/models").trusting(root.der()).send(&server).status, 200);
    }
}

#[test]
fn get_answers_whole_objects_ranges_and_conditions() {
    let server = public();
    let object = Object::pattern(1, 1_000_000).checksum(Checksum::Crc64Nvme);
    let expected = object.data().sha256_hex();
    server.put("models", "big", object);
    let whole = Ask::get("/models/big").header("x-amz-checksum-mode", "ENABLED").send(&server);
    assert_eq!((whole.status.as_u16(), whole.body.len()), (200, 1_000_000));
    assert_eq!(ObjectData::Bytes(whole.body.clone().into()).sha256_hex(), expected);
    assert_eq!(whole.header("x-amz-checksum-type"), "FULL_OBJECT");
    assert_eq!(whole.header("x-amz-checksum-crc64nvme").len(), 12);

    let part = Ask::get("/models/big")
        .header("range", "bytes=300000-599999")
        .header("x-amz-checksum-mode", "ENABLED")
        .header("if-match", whole.header("etag"))
        .send(&server);
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range"), "bytes 300000-599999/1000000");
    assert_eq!(part.header("x-amz-checksum-crc64nvme"), "");
    assert_eq!(part.body, whole.body[300_000..600_000]);

    let beyond = Ask::get("/models/big").header("range", "bytes=1000000-").send(&server);
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, "bytes */1000000"));
    let changed = Ask::get("/models/big").header("if-match", "\"other\"").send(&server);
    assert_eq!(changed.status, 412);
    assert!(changed.text().contains("<Code>PreconditionFailed</Code>"), "{}", changed.text());
    let same = Ask::get("/models/big").header("if-none-match", whole.header("etag")).send(&server);
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));

    let requests = server.requests();
    assert_eq!(requests[1].range_bytes(), Some((300_000, Some(599_999))));
    assert_eq!((requests[1].status, requests[1].bytes_sent), (206, 300_000));
    assert_eq!(server.requests_of(Operation::GetObject).len(), 5);
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = public();
    server.put("models", "dir/", Object::text(""));
    server.put("models", "a", Object::text("alpha").checksum(Checksum::Crc32c));
    let head = Ask::new("HEAD", "/models/a").header("x-amz-checksum-mode", "ENABLED").send(&server);
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "5"));
    assert_eq!(head.header("etag"), server.store().etag("models", "a").unwrap());
    assert!(!head.header("x-amz-checksum-crc32c").is_empty() && head.body.is_empty());
    let partial = Ask::new("HEAD", "/models/a").header("range", "bytes=1-2").send(&server);
    assert_eq!((partial.status.as_u16(), partial.header("content-length")), (206, "2"));
    assert_eq!(Ask::new("HEAD", "/models/dir/").send(&server).header("content-length"), "0");
    assert_eq!(Ask::new("HEAD", "/models/none").send(&server).status, 404);
    assert_eq!(Ask::new("HEAD", "/nothing").send(&server).status, 404);
    let missing = Ask::get("/nothing/a").send(&server);
    assert!(missing.text().contains("<Code>NoSuchBucket</Code>"), "{}", missing.text());
    let missing = Ask::get("/models/a%26b").send(&server);
    assert!(missing.text().contains("<Resource>/models/a&amp;b</Resource>"), "{}", missing.text());
}

#[test]
fn listing_pages_cover_everything_once() {
    let server = S3Server::builder().plain().public_bucket("models").page_size(2).start();
    let keys = ["a b", "a%b", "a+b", "dir/", "dir/x", "é/1", "../x"];
    for key in keys {
        server.put("models", key, Object::text(key).checksum(Checksum::Crc64Nvme));
    }
    let mut listed = Vec::new();
    let mut token = String::new();
    loop {
        let page = Ask::get(&format!("/models?list-type=2{token}")).send(&server).text();
        listed.extend(elements(&page, "Key"));
        assert!(page.contains("<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"), "{page}");
        match elements(&page, "NextContinuationToken").first() {
            Some(next) => token = format!("&continuation-token={next}"),
            None => break,
        }
    }
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(server.requests().len(), 4);

    let page = Ask::get("/models?list-type=2&delimiter=%2F&encoding-type=url&start-after=a%2Bb").send(&server).text();
    assert_eq!(elements(&page, "Prefix"), ["", "dir/", "%C3%A9/"]);
    let page = Ask::get("/models?list-type=2&encoding-type=url&max-keys=1&start-after=a").send(&server).text();
    assert_eq!(elements(&page, "Key"), ["a+b"]);
    assert_eq!(Ask::get("/models/a%2Bb").send(&server).text(), "a+b");
    assert_eq!(Ask::get("/models/a+b").send(&server).text(), "a+b");
    assert_eq!(Ask::get("/models/a%20b").send(&server).text(), "a b");
    assert_eq!(Ask::get("/models/%C3%A9/1").send(&server).text(), "é/1");
}

fn elements(xml: &str, name: &str) -> Vec<String> {
    let open = format!("<{name}>");
    let close = format!("</{name}>");
    xml.split(&open)
        .skip(1)
        .filter_map(|rest| rest.split_once(&close))
        .map(|(value, _)| value.to_owned())
        .chain(xml.contains(&format!("<{name}/>")).then(String::new))
        .collect()
}

#[test]
fn parts_of_a_multipart_object_are_selected_and_described() {
    let server = public();
    let object = Object::text("abcde").multipart(2).checksum(Checksum::Crc32c).composite();
    server.put("models", "m", object);
    let part = Ask::get("/models/m?partNumber=3").header("x-amz-checksum-mode", "ENABLED").send(&server);
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "e"));
    assert_eq!(part.header("x-amz-mp-parts-count"), "3");
    assert_eq!(part.header("content-range"), "bytes 4-4/5");
    assert_eq!(Ask::get("/models/m?partNumber=4").send(&server).status, 416);
    let head = Ask::new("HEAD", "/models/m").header("x-amz-checksum-mode", "ENABLED").send(&server);
    assert!(head.header("etag").ends_with("-3\""));
    assert!(head.header("x-amz-checksum-crc32c").ends_with("-3"));
    assert_eq!(head.header("x-amz-checksum-type"), "COMPOSITE");
    let attributes = Ask::get("/models/m?attributes")
        .header("x-amz-object-attributes", "ObjectParts,Checksum,ObjectSize,ETag")
        .send(&server)
        .text();
    assert_eq!(elements(&attributes, "PartNumber"), ["1", "2", "3"], "{attributes}");
    assert_eq!(elements(&attributes, "Size"), ["2", "2", "1"]);
    assert_eq!(elements(&attributes, "ObjectSize"), ["5"]);
    assert_eq!(elements(&attributes, "ChecksumCRC32C").len(), 4, "{attributes}");
}

#[test]
fn versions_stay_readable_after_the_key_is_replaced() {
    let server = S3Server::builder().plain().versioned_bucket("models").public_bucket("models").start();
    let first = server.put("models", "a", Object::text("one")).unwrap();
    server.put("models", "a", Object::text("two"));
    assert_eq!(Ask::get("/models/a").send(&server).text(), "two");
    let old = Ask::get(&format!("/models/a?versionId={first}")).send(&server);
    assert_eq!((old.text().as_str(), old.header("x-amz-version-id")), ("one", first.as_str()));
    server.remove("models", "a");
    let gone = Ask::get("/models/a").send(&server);
    assert_eq!((gone.status.as_u16(), gone.header("x-amz-delete-marker")), (404, "true"));
    let none = Ask::get("/models/a?versionId=none").send(&server);
    assert!(none.text().contains("<Code>NoSuchVersion</Code>"), "{}", none.text());
}

#[test]
fn only_good_signatures_read_a_private_bucket() {
    let server = private(AccessKey::new("AK", "SK"));
    let ask = || Ask::get("/models/a");
    assert_eq!(ask().signed(&server, "AK", "SK", "us-east-1").send(&server).text(), "alpha");
    let refused = |ask: Ask| {
        let answer = ask.send(&server);
        (answer.status.as_u16(), elements(&answer.text(), "Code").concat())
    };
    let code = |status, code: &str| (status, code.to_owned());
    assert_eq!(refused(ask()), code(403, "AccessDenied"));
    assert_eq!(refused(ask().signed(&server, "AK", "wrong", "us-east-1")), code(403, "SignatureDoesNotMatch"));
    assert_eq!(refused(ask().signed(&server, "KA", "SK", "us-east-1")), code(403, "InvalidAccessKeyId"));
    let token = ask().header("x-amz-security-token", "T").signed(&server, "AK", "SK", "us-east-1");
    assert_eq!(refused(token), code(400, "InvalidToken"));
    let list = Ask::get("/models?list-type=2&prefix=a").signed(&server, "AK", "SK", "us-east-1").send(&server);
    assert_eq!(elements(&list.text(), "Key"), ["a"]);
    let odd = "/models/a%20b%2Bc%25/%C3%A9";
    server.put("models", "a b+c%/é", Object::text("odd"));
    assert_eq!(Ask::get(odd).signed(&server, "AK", "SK", "us-east-1").send(&server).text(), "odd");
}

#[test]
fn a_temporary_key_needs_its_token() {
    let server = private(AccessKey::new("AK", "SK").session_token("T"));
    let with = |token: &str| Ask::get("/models/a").header("x-amz-security-token", token);
    assert_eq!(with("T").signed(&server, "AK", "SK", "us-east-1").send(&server).text(), "alpha");
    assert_eq!(with("U").signed(&server, "AK", "SK", "us-east-1").send(&server).status, 400);
    let without = Ask::get("/models/a").signed(&server, "AK", "SK", "us-east-1");
    assert_eq!(without.send(&server).status, 403);
}

#[test]
fn permissions_hide_what_they_do_not_allow() {
    let server = private(AccessKey::new("AK", "SK").allow_list(false).allow_get_version(false));
    let status = |method, target: &str| {
        Ask::new(method, target).signed(&server, "AK", "SK", "us-east-1").send(&server).status.as_u16()
    };
    assert_eq!(status("GET", "/models/a"), 200);
    assert_eq!(status("GET", "/models/missing"), 403);
    assert_eq!(status("HEAD", "/models/missing"), 403);
    assert_eq!(status("HEAD", "/models"), 403);
    assert_eq!(status("GET", "/models?list-type=2"), 403);
    assert_eq!(status("GET", "/models/a?versionId=null"), 403);
    assert_eq!(status("GET", "/nothing/a"), 404);
    let lister = private(AccessKey::new("AK", "SK").allow_get(false));
    let get = |target: &str| Ask::get(target).signed(&lister, "AK", "SK", "us-east-1").send(&lister).status;
    assert_eq!(get("/models/a"), 403);
    assert_eq!(get("/models?list-type=2"), 200);
}

#[test]
fn a_wrong_region_is_told_the_right_one() {
    let server = S3Server::builder()
        .plain()
        .credentials(AccessKey::new("AK", "SK"))
        .bucket("models")
        .region("eu-central-1")
        .start();
    server.put("models", "a", Object::text("alpha"));
    let wrong = Ask::get("/models/a").signed(&server, "AK", "SK", "us-east-1").send(&server);
    assert_eq!((wrong.status.as_u16(), wrong.header("x-amz-bucket-region")), (400, "eu-central-1"));
    assert_eq!(elements(&wrong.text(), "Code"), ["AuthorizationHeaderMalformed"]);
    assert_eq!(elements(&wrong.text(), "Region"), ["eu-central-1"]);
    let right = Ask::get("/models/a").signed(&server, "AK", "SK", "eu-central-1").send(&server);
    assert_eq!(right.text(), "alpha");
}

#[test]
fn a_bucket_may_be_in_the_host_or_in_the_path() {
    let server = S3Server::builder().plain().public_bucket("models").base_domain("localhost").start();
    server.put("models", "dir/a", Object::text("alpha"));
    assert_eq!(Ask::get("/dir/a").host("models.localhost").send(&server).text(), "alpha");
    assert_eq!(Ask::get("/models/dir/a").send(&server).text(), "alpha");
    assert_eq!(Ask::get("/models/dir/a").host("127.0.0.1").send(&server).text(), "alpha");
    let recorded = &server.requests()[0];
    assert_eq!((recorded.bucket.as_deref(), recorded.key.as_deref()), (Some("models"), Some("dir/a")));
}

#[test]
fn what_is_put_over_the_wire_is_there() {
    let server = private(AccessKey::new("AK", "SK"));
    let put = Ask::new("PUT", "/models/new").signed(&server, "AK", "SK", "us-east-1").send(&server);
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(put.header("etag"), server.store().etag("models", "new").unwrap());
}

#[test]
fn a_dropped_server_refuses_connections() {
    let server = public();
    let address = server.address();
    drop(server);
    std::net::TcpStream::connect(address).unwrap_err();
}
