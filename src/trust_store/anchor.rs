//! Which certificates may stand at the end of a chain.
//!
//! webpki takes whatever it is given as an anchor and checks neither its dates nor whether it may
//! issue certificates. OpenSSL and Go do (RFC 5280, sections 6.1.1 (d) and 6.1.4), so this does.

use rustls::pki_types::{CertificateDer, UnixTime};

use super::certificate::{CaUse, Certificate, Validity, date};

/// Whether the certificate may stand at the end of a chain at `now`.
pub(super) fn is_anchor(certificate: &Certificate, now: UnixTime) -> bool {
    certificate.validity_at(now) == Validity::InDate && certificate.ca == CaUse::Issuer
}

/// The system's roots: those that are in date and may issue certificates, and all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct SystemRoots {
    pub(super) anchors: Vec<CertificateDer<'static>>,
    pub(super) pins: Vec<CertificateDer<'static>>,
}

impl SystemRoots {
    pub(super) fn of(certificates: Vec<CertificateDer<'static>>, now: UnixTime) -> Self {
        let fit = |der: &&CertificateDer<'static>| {
            Certificate::parse(der).is_some_and(|certificate| is_anchor(&certificate, now))
        };
        Self { anchors: certificates.iter().filter(fit).cloned().collect(), pins: certificates }
    }
}

/// Why a certificate that was meant as a CA is none, where that is worth a warning: one without
/// `CA:TRUE` may well be meant as a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    Expired,
    NotYetValid,
    NoKeyCertSign,
}

impl Unfit {
    pub(super) fn of(certificate: &Certificate, now: UnixTime) -> Option<Self> {
        match (certificate.validity_at(now), certificate.ca) {
            (Validity::Expired, _) => Some(Self::Expired),
            (Validity::NotYetValid, _) => Some(Self::NotYetValid),
            (Validity::InDate, CaUse::NoKeyCertSign) => Some(Self::NoKeyCertSign),
            (Validity::InDate, CaUse::NotACa | CaUse::Issuer) => None,
        }
    }

    pub(super) fn named(self, certificate: &Certificate) -> String {
        let subject = &certificate.subject;
        match self {
            Self::Expired => format!("{subject:?} (until {})", certificate.not_after_date()),
            Self::NotYetValid => format!("{subject:?} (from {})", date(certificate.not_before)),
            Self::NoKeyCertSign => format!("{subject:?}"),
        }
    }

    /// What is wrong, and what to do.
    pub(super) fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::Expired => {
                ("expired, so not trusted", "replace it with the CA certificate that is in use, or remove it")
            }
            Self::NotYetValid => ("not valid yet, so not trusted", "check this node's clock"),
            Self::NoKeyCertSign => (
                "no CA, because its key usage lacks keyCertSign, so nothing that it issued is trusted",
                "reissue it with keyCertSign",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};

    use super::*;

    fn at(year: i32) -> UnixTime {
        let seconds = date_time_ymd(year, 7, 1).unix_timestamp();
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(seconds).unwrap()))
    }

    /// Valid from 2020 to 2030.
    fn certificate(is_ca: IsCa, usages: &[KeyUsagePurpose]) -> Certificate {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        params.is_ca = is_ca;
        params.key_usages = usages.to_vec();
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::parse(signed.der()).unwrap()
    }

    fn ca() -> IsCa {
        IsCa::Ca(BasicConstraints::Unconstrained)
    }

    #[test]
    fn a_ca_is_an_anchor_while_it_is_in_date() {
        let ca = certificate(ca(), &[]);
        for (year, anchor, unfit) in
            [(2019, false, Some(Unfit::NotYetValid)), (2025, true, None), (2031, false, Some(Unfit::Expired))]
        {
            assert_eq!((is_anchor(&ca, at(year)), Unfit::of(&ca, at(year))), (anchor, unfit), "{year}");
        }
    }

    #[test]
    fn a_key_usage_decides_where_there_is_one() {
        let signer = certificate(ca(), &[KeyUsagePurpose::KeyCertSign]);
        assert!(is_anchor(&signer, at(2025)));
        let other = certificate(ca(), &[KeyUsagePurpose::DigitalSignature]);
        assert!(!is_anchor(&other, at(2025)));
        assert_eq!(Unfit::of(&other, at(2025)), Some(Unfit::NoKeyCertSign));
    }

    #[test]
    fn what_is_no_ca_is_no_anchor_and_not_worth_a_warning() {
        for is_ca in [IsCa::ExplicitNoCa, IsCa::NoCa] {
            let leaf = certificate(is_ca, &[KeyUsagePurpose::KeyCertSign]);
            assert_eq!((is_anchor(&leaf, at(2025)), Unfit::of(&leaf, at(2025))), (false, None));
        }
    }
}
