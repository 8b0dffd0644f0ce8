//! Announcements and failures as bytes, for communicators that send them.

use super::{Announcement, CollectiveError, Element, Operation};

/// Bytes of an announcement on its way.
pub(super) const ANNOUNCEMENT: usize = 64;

/// Bytes of a failure on its way: the rank, and what it says as far as it fits.
pub(super) const FAILURE: usize = 2048;

/// Changes whenever the bytes of an announcement or the order of messages do.
const PROTOCOL: [u8; 4] = *b"PAB2";

impl Announcement {
    /// As it is sent.
    pub(super) fn encode(&self) -> [u8; ANNOUNCEMENT] {
        let mut bytes = [0; ANNOUNCEMENT];
        bytes[..4].copy_from_slice(&PROTOCOL);
        bytes[4] = self.operation as u8;
        bytes[5] = self.element as u8;
        bytes[8..16].copy_from_slice(&self.node.to_le_bytes());
        for (size, field) in self.shape.iter().zip(bytes[16..].as_chunks_mut::<8>().0) {
            *field = (*size as u64).to_le_bytes();
        }
        bytes
    }

    /// `None` for what another version sends.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != ANNOUNCEMENT || bytes[..4] != PROTOCOL {
            return None;
        }
        let operations = Operation::OPERATORS.into_iter().chain([Operation::Handshake]);
        let mut shape = [0; 5];
        for (size, field) in shape.iter_mut().zip(bytes[16..].as_chunks::<8>().0) {
            *size = usize::try_from(u64::from_le_bytes(*field)).ok()?;
        }
        Some(Self {
            operation: operations.into_iter().find(|operation| *operation as u8 == bytes[4])?,
            element: Element::ALL.into_iter().find(|element| *element as u8 == bytes[5])?,
            shape,
            node: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
        })
    }
}

/// What `rank` tells the others of a failure, which may be that of a rank that told it.
pub(super) fn encode_failure(rank: usize, failure: &CollectiveError) -> Vec<u8> {
    let (rank, reason) = match failure {
        CollectiveError::Failed { rank, reason } => (*rank, reason.clone()),
        other => (rank, other.to_string()),
    };
    let mut bytes = vec![0_u8; FAILURE];
    bytes[..8].copy_from_slice(&(rank as u64).to_le_bytes());
    let length = reason.len().min(FAILURE - 8);
    bytes[8..8 + length].copy_from_slice(&reason.as_bytes()[..length]);
    bytes
}

/// What a rank told.
pub(super) fn decode_failure(bytes: &[u8]) -> CollectiveError {
    let (rank, reason) = bytes.split_at(8.min(bytes.len()));
    let rank = rank.try_into().map_or(0, u64::from_le_bytes);
    CollectiveError::Failed {
        rank: usize::try_from(rank).unwrap_or(0),
        reason: String::from_utf8_lossy(reason).trim_end_matches('\0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_and_failures_come_back() {
        let announcement = Announcement::new(Operation::AllToAll, Element::Bfloat16, [1, 2, 3, 4, 1 << 40], "node");
        let mut bytes = announcement.encode();
        assert_eq!(Announcement::decode(&bytes), Some(announcement));
        bytes[5] = 200;
        assert_eq!(Announcement::decode(&bytes), None);
        assert_eq!(Announcement::decode(&[0; ANNOUNCEMENT]), None);
        let error = CollectiveError::Mesh {
            reason: "ä".repeat(4000),
        };
        let CollectiveError::Failed { rank, reason } = decode_failure(&encode_failure(7, &error)) else {
            panic!("a failure is one");
        };
        assert!(rank == 7 && reason.starts_with("ää"));
        let told = CollectiveError::Failed {
            rank: 3,
            reason: "x".to_owned(),
        };
        assert_eq!(decode_failure(&encode_failure(7, &told)), told);
    }
}
