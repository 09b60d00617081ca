//! Frames between the server and the child that compiles: four bytes of length, then MessagePack.

use std::fmt;
use std::io;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::DeserializeOwned;

pub(crate) const LENGTH_BYTES: usize = 4;

/// Bytes that travel as bytes; a `Vec<u8>` would travel as a list of numbers.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Visitor)
    }
}

/// A value as a frame, its length in front.
pub(crate) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; LENGTH_BYTES];
    rmp_serde::encode::write(&mut frame, value).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - LENGTH_BYTES).map_err(io::Error::other)?;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The length that a header tells, if it is no more than `max`.
pub(crate) fn length(header: [u8; LENGTH_BYTES], max: usize) -> io::Result<usize> {
    let length = u32::from_le_bytes(header) as usize;
    if length > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is longer than agreed"));
    }
    Ok(length)
}

/// The value of a frame without its length.
pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    rmp_serde::from_slice(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_a_frame_at_one_byte_each() {
        let frame = encode(&Bytes(vec![200; 1000])).expect("encodes");
        assert!(frame.len() < 1020);
        let header = frame[..LENGTH_BYTES].try_into().expect("four bytes");
        assert_eq!(length(header, 2000).expect("short enough"), frame.len() - LENGTH_BYTES);
        assert!(length(header, 100).is_err());
        assert_eq!(decode::<Bytes>(&frame[LENGTH_BYTES..]).expect("decodes").0, vec![200; 1000]);
        assert!(decode::<Bytes>(&frame[LENGTH_BYTES..20]).is_err());
    }
}
