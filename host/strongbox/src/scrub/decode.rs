//! Content codings (RFC 9110 §8.4) are undone before anything is looked for. Decoding stops at the limit
//! as it decodes, not after (threats N27).

use std::io::Read;

use brotli_decompressor::Decompressor;
use flate2::read::DeflateDecoder;
use flate2::read::MultiGzDecoder;
use flate2::read::ZlibDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use ruzstd::decoding::StreamingDecoder;

use super::ScrubFault;

/// A server and a proxy before it; nobody has a reason for more.
const CODINGS_MAX: usize = 2;

/// What decoders write into at a time.
const PIECE_BYTES: usize = 16 << 10;

/// RFC 8878 §3.1.1.1.2 recommends to support 8 MiB, and RFC 9659 forbids more in HTTP.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

#[derive(Clone, Copy)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The body without the codings that the header names; none of the bodies on the way is longer than
/// `bytes_max`.
pub(super) fn decode(headers: &HeaderMap, body: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, ScrubFault> {
    // The last that was applied is named last, and undone first.
    codings(headers)?.into_iter().rev().try_fold(body, |body, coding| match coding {
        Coding::Gzip => read(MultiGzDecoder::new(body.as_slice()), bytes_max),
        Coding::Deflate => deflate(&body, bytes_max),
        Coding::Brotli => read(Decompressor::new(body.as_slice(), PIECE_BYTES), bytes_max),
        Coding::Zstd => zstd(&body, bytes_max),
    })
}

fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, ScrubFault> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| ScrubFault::UnknownCoding)?;
        for name in value.split(',').map(str::trim) {
            codings.push(match name.to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                _ => return Err(ScrubFault::UnknownCoding),
            });
            if codings.len() > CODINGS_MAX {
                return Err(ScrubFault::UnknownCoding);
            }
        }
    }
    Ok(codings)
}

fn read(decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, ScrubFault> {
    let mut decoded = Vec::new();
    append(decoder, &mut decoded, bytes_max)?;
    Ok(decoded)
}

fn append(mut decoder: impl Read, decoded: &mut Vec<u8>, bytes_max: usize) -> Result<(), ScrubFault> {
    let mut piece = [0; PIECE_BYTES];
    loop {
        match decoder.read(&mut piece).map_err(|_| ScrubFault::MalformedCoding)? {
            0 => return Ok(()),
            count if count > bytes_max - decoded.len() => return Err(ScrubFault::TooLarge),
            count => decoded.extend_from_slice(&piece[..count]),
        }
    }
}

/// `deflate` is zlib (RFC 9110 §8.4.1.2); some servers send it without zlib's wrapping.
fn deflate(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, ScrubFault> {
    // RFC 1950 §2.2: method 8, and the first two bytes divisible by 31.
    let is_zlib = matches!(body, [first, second, ..]
        if first & 15 == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0);
    if is_zlib { read(ZlibDecoder::new(body), bytes_max) } else { read(DeflateDecoder::new(body), bytes_max) }
}

/// Every frame there is (RFC 8878 §3): the library reads one.
fn zstd(mut body: &[u8], bytes_max: usize) -> Result<Vec<u8>, ScrubFault> {
    let mut decoded = Vec::new();
    while !body.is_empty() {
        if let Some(rest) = after_skippable_frame(body)? {
            body = rest;
            continue;
        }
        let mut decoder = StreamingDecoder::new_with_max_window_size(&mut body, ZSTD_WINDOW_BYTES_MAX)
            .map_err(|_| ScrubFault::MalformedCoding)?;
        append(&mut decoder, &mut decoded, bytes_max)?;
    }
    Ok(decoded)
}

/// RFC 8878 §3.1.2.
fn after_skippable_frame(body: &[u8]) -> Result<Option<&[u8]>, ScrubFault> {
    let Some((magic, rest)) = body.split_first_chunk::<4>() else { return Err(ScrubFault::MalformedCoding) };
    if u32::from_le_bytes(*magic) & 0xffff_fff0 != 0x184d_2a50 {
        return Ok(None);
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(ScrubFault::MalformedCoding)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| ScrubFault::MalformedCoding)?;
    rest.get(length..).map(Some).ok_or(ScrubFault::MalformedCoding)
}
