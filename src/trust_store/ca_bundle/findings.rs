//! What a scan has found so far, and the bounds on what it says about it.

use std::collections::HashSet;

use rustls::pki_types::CertificateDer;

use super::recognise::Surroundings;
use super::remark::{Content, Place, Reason, Remark, Repair};
use super::text::Text;
use super::{CaBundle, FoundCertificate, MAX_SKIPPED};

/// Most damaged DER that a source may hold before we stop looking for more: each costs a parse of
/// all that its header claims, and without a bound a hostile megabyte would cost minutes.
const MAX_DAMAGED_DER: usize = 64;

#[derive(Default)]
pub(super) struct Findings {
    certificates: Vec<FoundCertificate>,
    known: HashSet<CertificateDer<'static>>,
    duplicates: usize,
    remarks: Vec<Remark>,
    blocks: usize,
    outcomes: usize,
    skipped: usize,
    damaged_der: usize,
    commented_out: Option<Place>,
}

impl Findings {
    /// The place of a new block.
    pub(super) fn place(&mut self, text: &mut Text<'_>, offset: usize) -> Place {
        self.blocks += 1;
        Place { block: self.blocks, line: text.line(offset) }
    }

    /// How many blocks there were to which something was said or done. Grows with each of the
    /// methods below.
    pub(super) fn outcomes(&self) -> usize {
        self.outcomes
    }

    /// How many certificates there were, duplicates included.
    pub(super) fn certificates(&self) -> usize {
        self.certificates.len() + self.duplicates
    }

    pub(super) fn keep(&mut self, place: Place, der: CertificateDer<'static>) {
        self.outcomes += 1;
        if self.known.insert(der.clone()) {
            self.certificates.push(FoundCertificate { der, block: place.block, line: place.line });
        } else {
            self.duplicates += 1;
        }
    }

    /// One remark for each kind of repair: a bundle of 150 CAs on one line is one mistake.
    pub(super) fn repaired(&mut self, place: Place, new: Repair) {
        for remark in &mut self.remarks {
            if let Remark::Repaired { repair, blocks, .. } = remark
                && *repair == new
            {
                *blocks += 1;
                return;
            }
        }
        self.remarks.push(Remark::Repaired { repair: new, first: place, blocks: 1 });
    }

    pub(super) fn private_key(&mut self, place: Place) {
        self.outcomes += 1;
        for remark in &mut self.remarks {
            if let Remark::PrivateKey { blocks, .. } = remark {
                *blocks += 1;
                return;
            }
        }
        self.remarks.push(Remark::PrivateKey { first: place, blocks: 1 });
    }

    pub(super) fn skip(&mut self, place: Place, reason: Reason) {
        if reason == Reason::PrivateKey {
            return self.private_key(place);
        }
        self.outcomes += 1;
        self.skipped += 1;
        if self.skipped <= MAX_SKIPPED {
            self.remarks.push(Remark::Skipped { place, reason });
        }
    }

    /// Somebody decided against this one. Only a bundle that has nothing else needs to be told.
    pub(super) fn commented_out(&mut self, place: Place) {
        self.outcomes += 1;
        self.commented_out.get_or_insert(place);
    }

    /// Whether DER may still be parsed that may turn out to be damaged.
    pub(super) fn may_parse_der(&self) -> bool {
        self.damaged_der < MAX_DAMAGED_DER
    }

    pub(super) fn damaged_der(&mut self, place: Place, reason: Reason) {
        self.damaged_der += 1;
        self.skip(place, reason);
    }

    pub(super) fn not_a_bundle(&mut self, content: Content, in_base64: bool) {
        self.outcomes += 1;
        self.remarks.push(Remark::NotABundle { content, in_base64 });
    }

    /// Escapes and quotes belong to a document: that the certificates are in one says it all.
    pub(super) fn inside(&mut self, surroundings: Surroundings) {
        self.remarks.retain(|remark| {
            !matches!(remark, Remark::Repaired { repair: Repair::EscapedLineBreaks | Repair::Quoted, .. })
        });
        let first = self
            .certificates
            .first()
            .map_or(Place { block: 1, line: 1 }, |first| Place { block: first.block, line: first.line });
        let repair = match surroundings {
            Surroundings::Json => Repair::InsideJson,
            Surroundings::Yaml => Repair::InsideYaml,
        };
        self.remarks.push(Remark::Repaired { repair, first, blocks: self.certificates() });
    }

    /// Whether all there is to say is that nobody knows what this is.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(
            self.remarks.as_slice(),
            [Remark::NotABundle { content: Content::Empty | Content::Unknown { is_text: false, .. }, .. }]
        )
    }

    pub(super) fn finish(mut self) -> CaBundle {
        if let Some(place) = self.commented_out
            && self.certificates.is_empty()
        {
            self.remarks.push(Remark::Skipped { place, reason: Reason::CommentedOut });
        }
        if let Some(blocks) = self.skipped.checked_sub(MAX_SKIPPED).filter(|more| *more > 0) {
            self.remarks.push(Remark::MoreSkipped { blocks });
        }
        CaBundle { certificates: self.certificates, duplicates: self.duplicates, remarks: self.remarks }
    }
}
