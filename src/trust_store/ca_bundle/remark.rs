//! What a scan has to say, in words. Every text is fixed; what varies are numbers, so no remark can
//! carry what was pasted.

use std::fmt;

/// Before what must be decoded before its own command helps.
const BASE64_OF: &str = "base64 (decode it first: `base64 -d`) of ";

/// Something worth saying about a bundle; a line of its own, to be put behind the name of its
/// source.
///
/// A remark holds positions, lengths and fixed words, never a byte of what was pasted: neither
/// `Display` nor `Debug` can show a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Remark {
    /// Certificates that are used, in a shape that other programs do not read.
    #[error("{}: {repair}", Blocks { first: *first, blocks: *blocks })]
    Repaired {
        /// What was wrong and put right.
        repair: Repair,
        /// Where it was seen first.
        first: Place,
        /// How many blocks it was seen in.
        blocks: usize,
    },
    /// Private keys among the certificates. They are not read, and the certificates beside them are
    /// used.
    #[error(
        "{}: PRIVATE KEY in a CA bundle: everybody who can read the bundle has it; remove it from here, and replace the key \
         and its certificate",
        Blocks { first: *first, blocks: *blocks }
    )]
    PrivateKey {
        /// Where the first one is.
        first: Place,
        /// How many there are.
        blocks: usize,
    },
    /// A block that gives no certificate. The others are used.
    #[error("{place}: skipped: {reason}")]
    Skipped {
        /// Where it is.
        place: Place,
        /// Why, and what to do.
        reason: Reason,
    },
    /// More blocks were skipped than are worth a line each.
    #[error("{blocks} more blocks skipped")]
    MoreSkipped {
        /// How many.
        blocks: usize,
    },
    /// The source as a whole is something else, and nothing in it can be used.
    #[error("{}{content}", if *in_base64 { BASE64_OF } else { "" })]
    NotABundle {
        /// What it is, and what to do.
        content: Content,
        /// It was found by decoding the source's base64 once.
        in_base64: bool,
    },
}

impl Remark {
    /// Whether this is about certificates that are used all the same. What is not a repair was
    /// skipped, or is a private key, and deserves the louder line.
    #[must_use]
    pub fn is_repair(&self) -> bool {
        match self {
            Self::Repaired { .. } => true,
            Self::PrivateKey { .. } | Self::Skipped { .. } | Self::MoreSkipped { .. } | Self::NotABundle { .. } => {
                false
            }
        }
    }
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From one; everything that looks like a block counts, certificate or not.
    pub block: usize,
    /// From one: the line of its BEGIN as an editor shows it, of its first letter where it has no
    /// BEGIN. Inside base64 of a PEM, the line after decoding.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} (line {})", self.block, self.line)
    }
}

/// One place, or how many there are and the first of them.
struct Blocks {
    first: Place,
    blocks: usize,
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blocks {
            0 | 1 => write!(f, "{}", self.first),
            blocks => write!(f, "{blocks} blocks, the first is {}", self.first),
        }
    }
}

/// What was put right. OpenSSL, Go and rustls each refuse or lose the certificate in at least one
/// of these shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Repair {
    /// `\n`, `\r\n` or `\\n` for a line break.
    #[error(r"line breaks are written as the characters \n; write real ones (inside JSON, \n and not \\n)")]
    EscapedLineBreaks,
    /// Quotes around the value, or around its lines.
    #[error("the PEM is in quotes; remove them")]
    Quoted,
    /// No line break between a marker and what follows or precedes it.
    #[error("the PEM is on one line; put the BEGIN line, the base64 and the END line on lines of their own")]
    OneLine,
    /// Hyphens, spaces or the line break of a marker are not where they belong.
    #[error("the BEGIN or END line is misspelt; write it as -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----")]
    MisspeltMarker,
    /// BEGIN and END carry different words.
    #[error("BEGIN and END carry different labels; write CERTIFICATE in both")]
    DifferentLabels,
    /// The base64 of a whole certificate, then no END.
    #[error("the END line is missing; add -----END CERTIFICATE-----")]
    NoEnd,
    /// The base64 of a whole certificate, then an END.
    #[error("the BEGIN line is missing; add -----BEGIN CERTIFICATE-----")]
    NoBegin,
    /// PEM, encoded once more.
    #[error(
        "base64 of a PEM, decoded once; paste what `base64 -d FILE` prints (kubectl and stringData encode by themselves)"
    )]
    Base64OfPem,
    /// DER, encoded, without BEGIN and END.
    #[error(
        "base64 without BEGIN and END lines; add -----BEGIN CERTIFICATE----- before it and -----END CERTIFICATE----- after"
    )]
    BareBase64,
    /// DER.
    #[error("DER, not PEM; convert it: `openssl x509 -inform DER -in FILE -out ca.crt`")]
    Der,
    /// The certificates are values of a JSON document.
    #[error("the certificates are inside JSON; paste only what is between BEGIN and END, these lines included")]
    InsideJson,
    /// The certificates are values of a YAML document.
    #[error("the certificates are inside YAML; paste only what is between BEGIN and END, these lines included")]
    InsideYaml,
}

/// Why a block was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// BEGIN, then at once END.
    #[error("nothing between BEGIN and END; paste the whole certificate")]
    Empty,
    /// A character that base64 does not have.
    #[error("damaged: line {line} holds a character that base64 does not have; paste the certificate again")]
    NotBase64 {
        /// Its line, counted as in [`Place::line`].
        line: usize,
    },
    /// Base64 letters that no bytes encode to.
    #[error("damaged: its base64 cannot be decoded, letters are missing or too many; paste the certificate again")]
    Undecodable,
    /// Fewer bytes than the certificate says it has.
    #[error("cut short: {present} of {expected} bytes; paste the whole certificate")]
    Truncated {
        /// Bytes there.
        present: usize,
        /// Bytes that its own header claims.
        expected: usize,
    },
    /// Bytes that belong to no certificate, inside its base64 or DER. OpenSSL overlooks them, Go
    /// and rustls refuse them.
    #[error(
        "trailing bytes: {extra} more than the certificate has; write it anew: `openssl x509 -in FILE -out ca.crt`"
    )]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// Bytes, but not those of RFC 5280.
    #[error("not an X.509 certificate, although it is labelled as one; paste the certificate again")]
    NotACertificate,
    /// BEGIN without END, and no whole certificate behind it.
    #[error("BEGIN without END; paste the block to its end")]
    NoEnd,
    /// END without BEGIN, and no whole certificate before it.
    #[error("END without BEGIN; paste the block from its start")]
    NoBegin,
    /// `#` before its BEGIN. Said only where nothing else was found.
    #[error("commented out; remove the # in front of its lines to use it")]
    CommentedOut,
    /// Base64 inside base64.
    #[error("base64 of base64 of a PEM; only one is undone, decode it: `base64 -d FILE | base64 -d`")]
    Base64Twice,
    /// A private key labelled as a certificate. Reported as [`Remark::PrivateKey`].
    #[error("a private key")]
    PrivateKey,
    /// Something else that also comes in blocks.
    #[error("{0}")]
    OtherKind(Kind),
    /// Something else, in base64 without markers.
    #[error("{BASE64_OF}{0}")]
    Base64OfOtherKind(Kind),
}

/// What is pasted for a certificate because it also comes in such files, and what makes
/// certificates of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// OpenSSL's certificate with trust settings behind it (`X509_AUX`).
    #[error(
        "a TRUSTED CERTIFICATE: OpenSSL's own format, with trust settings behind the certificate that only OpenSSL reads; \
         take them off: `openssl x509 -in FILE -out ca.crt`"
    )]
    TrustedCertificate,
    /// PKCS#10.
    #[error(
        "a certificate signing request: it holds no certificate; paste the certificate of the CA that it is sent to"
    )]
    CertificateRequest,
    /// PKCS#7 in PEM.
    #[error("PKCS#7, not a PEM certificate; convert it: `openssl pkcs7 -print_certs -in FILE -out ca.crt`")]
    Pkcs7,
    /// PKCS#7 in DER.
    #[error(
        "PKCS#7 in DER, not a PEM certificate; convert it: `openssl pkcs7 -inform DER -print_certs -in FILE -out ca.crt`"
    )]
    Pkcs7Der,
    /// PKCS#12, which is also what `keytool` writes since Java 9.
    #[error(
        "a PKCS#12 keystore, not a PEM certificate; convert it: `openssl pkcs12 -in FILE -cacerts -nokeys -out ca.crt`"
    )]
    Pkcs12,
    /// JKS or JCEKS.
    #[error(
        "a Java keystore, not a PEM certificate; convert it: `keytool -exportcert -rfc -keystore FILE -alias ALIAS -file ca.crt` \
         (`keytool -list -keystore FILE` names the aliases)"
    )]
    JavaKeystore,
    /// A key without a certificate.
    #[error("a public key: it names nobody and nobody signed it; paste the certificate of the CA instead")]
    PublicKey,
    /// A revocation list.
    #[error("a certificate revocation list: it holds no certificate; paste the certificate of the CA that issued it")]
    Crl,
    /// A label that means no certificate.
    #[error("a block of another kind: it holds no certificate; remove it")]
    Other,
}

/// What a whole source is when it is no bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Content {
    /// Nothing, or nothing but white space.
    #[error("empty; paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----")]
    Empty,
    /// More than a scan takes, see [`MAX_BYTES`](super::MAX_BYTES).
    #[error(
        "{bytes} bytes, more than the {} of the largest CA bundle that is read; keep the CAs that the endpoint needs",
        super::MAX_BYTES
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Windows' text encoding.
    #[error("{encoding} text, not UTF-8; convert it: `iconv -f {encoding} -t UTF-8 FILE > ca.crt`")]
    Utf16 {
        /// `iconv`'s name for it.
        encoding: &'static str,
    },
    /// A web page: of a login, or of an error.
    #[error(
        "HTML or XML, perhaps the page of a login or an error instead of the file; download the certificate again and look at it"
    )]
    Html,
    /// A JSON document without certificates.
    #[error(
        "JSON without a certificate in it; paste the certificate itself, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
    )]
    Json,
    /// A YAML document without certificates.
    #[error(
        "YAML without a certificate in it; paste the certificate itself, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
    )]
    Yaml,
    /// A template that nothing filled in.
    #[error("a template's placeholder that was not filled in; look at what renders this value")]
    Placeholder,
    /// The name of a file.
    #[error("a path or URL, not a certificate; paste the content of that file, or mount it and name it in ca_bundle")]
    Path,
    /// gzip or ZIP.
    #[error("a gzip or ZIP archive; unpack it and paste the certificates in it")]
    Archive,
    /// One of the files that hold keys and certificates in another way.
    #[error("{0}")]
    Kind(Kind),
    /// None of these.
    #[error(
        "no certificate in it: {bytes} bytes of {}; paste the certificate of the CA, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----",
        if *is_text { "text without a BEGIN CERTIFICATE line" } else { "binary data" }
    )]
    Unknown {
        /// Its length.
        bytes: usize,
        /// It is UTF-8.
        is_text: bool,
    },
}
