//! The harness: everything around the product that a test needs, and nothing of the product itself.
//!
//! A test here runs the real binary against a real server, and then looks at what is on the volume. It reads like this:
//!
//! 1. [`pki`] makes an authority and a certificate for this test alone. No key is checked in, none expires.
//! 2. [`s3_server`] serves objects over TLS with that certificate, in the test's own process, so that the test can put,
//!    replace and remove objects, strike with faults at the byte it means, and count what was asked and sent. A server
//!    that is somebody else's is filled by [`s3_client`].
//! 3. [`mounted_volume`] lays out the ConfigMap and the Secret as the kubelet does, symlinks and all.
//! 4. [`initializer`] runs the binary with an empty environment plus what the test says, and bounds its time.
//! 5. [`connect_proxy`] leads any host name to the server, where a test needs one that does not resolve; [`door`] is a
//!    port that is not always open; [`tls_front`] speaks TLS for what does not; [`nginx`] and [`squid`] are Debian's.
//!    [`identity`] hands out temporary keys, as STS and the metadata services of pods and nodes do.
//! 6. [`mount`] gives a test a file system of its own, or the product other files than the machine has.
//! 7. [`tree`] reads the destination, hidden entries and all, and compares it with the objects.
//! 8. [`pod`] puts all of them together, for tests that are about one thing; [`scene`] for the tests of trust.
//!
//! The harness knows the product by its command line, environment, exit code and output only: it does not link it, so
//! every promise is tested as a user meets it. Nothing sleeps: where a test must act in the middle of something, a
//! [`s3_server::faults::Gate`] says when the middle is.
//!
//! Failures of the harness itself panic with the reason; a test could do nothing better with an error.

#![allow(clippy::expect_used, reason = "a harness that cannot set up its test has to fail it, loudly and at once")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bench;
pub mod connect_proxy;
pub mod door;
pub mod identity;
pub mod initializer;
mod listening;
pub mod measure;
pub mod mount;
pub mod mounted_volume;
pub mod nginx;
pub mod pki;
pub mod pod;
pub mod s3_client;
pub mod s3_server;
pub mod scene;
pub mod soak;
pub mod sockets;
pub mod squid;
pub mod tls_front;
pub mod tree;
