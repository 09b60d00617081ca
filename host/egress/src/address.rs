//! Which addresses are on the public internet. Everything that is not is refused unless the operator
//! named its range: the reason is for `explain`, never for the guest. Not for names: those are
//! resolved elsewhere and come here as addresses.
//!
//! Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190) as of 2025, read
//! strictly: an entry that is there for the network's own machinery is refused even where the registry
//! calls it globally reachable, since no API is served from it.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Why an address is not one that a tool may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotGlobal {
    /// 0.0.0.0/8, `::`: this host, or none.
    Unspecified,
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// RFC 1918 and unique local addresses (RFC 4193).
    Private,
    /// 169.254.0.0/16, fe80::/10: neighbours, and where clouds keep their metadata.
    LinkLocal,
    /// fec0::/10 (RFC 3879).
    SiteLocal,
    /// 100.64.0.0/10: behind a carrier's NAT (RFC 6598).
    SharedSpace,
    /// IETF protocol assignments, relays and other machinery.
    Protocol,
    /// Networks that exist in documents only.
    Documentation,
    /// Networks for measuring devices (RFC 2544, RFC 5180).
    Benchmarking,
    /// Multicast.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// Reserved, unassigned, or outside 2000::/3.
    Reserved,
    /// An IPv4 address in IPv6 clothing: mapped, compatible, NAT64, 6to4, Teredo. Refused whole, since
    /// where it ends depends on a translator that is not ours.
    Embedded,
    /// A platform's own service on an address that looks public.
    Platform,
}

impl fmt::Display for NotGlobal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::SiteLocal => "site-local",
            Self::SharedSpace => "shared address space",
            Self::Protocol => "protocol assignment",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::Embedded => "IPv4 embedded in IPv6",
            Self::Platform => "cloud platform service",
        })
    }
}

/// Why the address is not global; none if it is.
#[must_use]
pub fn not_global(address: IpAddr) -> Option<NotGlobal> {
    match address {
        IpAddr::V4(address) => not_global_v4(address),
        IpAddr::V6(address) => not_global_v6(address),
    }
}

fn not_global_v4(address: Ipv4Addr) -> Option<NotGlobal> {
    let bits = address.to_bits();
    V4.iter().find(|(base, length, _)| (bits ^ base.to_bits()) >> (32 - length) == 0).map(|(.., reason)| *reason)
}

fn not_global_v6(address: Ipv6Addr) -> Option<NotGlobal> {
    let bits = address.to_bits();
    let named = V6.iter().find(|(base, length, _)| (bits ^ base) >> (128 - length) == 0).map(|(.., reason)| *reason);
    // Only 2000::/3 has ever been handed out as global unicast (RFC 4291 §2.4); the rest is denied by
    // default, so that a block assigned tomorrow is not reachable before somebody has looked at it.
    named.or((bits >> 125 != 1).then_some(NotGlobal::Reserved))
}

/// First match wins: narrower ranges stand before the wider ones that hold them.
const V4: &[(Ipv4Addr, u32, NotGlobal)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, NotGlobal::Unspecified),
    (Ipv4Addr::new(10, 0, 0, 0), 8, NotGlobal::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, NotGlobal::SharedSpace),
    (Ipv4Addr::new(127, 0, 0, 0), 8, NotGlobal::Loopback),
    // Azure's wire server answers here from inside every machine of it.
    (Ipv4Addr::new(168, 63, 129, 16), 32, NotGlobal::Platform),
    (Ipv4Addr::new(169, 254, 0, 0), 16, NotGlobal::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, NotGlobal::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, NotGlobal::Protocol),
    (Ipv4Addr::new(192, 0, 2, 0), 24, NotGlobal::Documentation),
    (Ipv4Addr::new(192, 31, 196, 0), 24, NotGlobal::Protocol),
    (Ipv4Addr::new(192, 52, 193, 0), 24, NotGlobal::Protocol),
    (Ipv4Addr::new(192, 88, 99, 0), 24, NotGlobal::Protocol),
    (Ipv4Addr::new(192, 168, 0, 0), 16, NotGlobal::Private),
    (Ipv4Addr::new(192, 175, 48, 0), 24, NotGlobal::Protocol),
    (Ipv4Addr::new(198, 18, 0, 0), 15, NotGlobal::Benchmarking),
    (Ipv4Addr::new(198, 51, 100, 0), 24, NotGlobal::Documentation),
    (Ipv4Addr::new(203, 0, 113, 0), 24, NotGlobal::Documentation),
    (Ipv4Addr::new(224, 0, 0, 0), 4, NotGlobal::Multicast),
    (Ipv4Addr::new(255, 255, 255, 255), 32, NotGlobal::Broadcast),
    (Ipv4Addr::new(240, 0, 0, 0), 4, NotGlobal::Reserved),
];

const V6: &[(u128, u32, NotGlobal)] = &[
    (0, 128, NotGlobal::Unspecified),
    (1, 128, NotGlobal::Loopback),
    (0, 96, NotGlobal::Embedded),                      // IPv4-compatible (RFC 4291 §2.5.5.1)
    (0xffff << 32, 96, NotGlobal::Embedded),           // IPv4-mapped
    (0xffff << 48, 96, NotGlobal::Embedded),           // IPv4-translated (RFC 2765)
    (0x0064_ff9b << 96, 96, NotGlobal::Embedded),      // NAT64 (RFC 6052)
    (0x0064_ff9b_0001 << 80, 48, NotGlobal::Embedded), // local NAT64 (RFC 8215)
    (0x0100 << 112, 64, NotGlobal::Protocol),          // discard (RFC 6666)
    (0x2001 << 112, 32, NotGlobal::Embedded),          // Teredo (RFC 4380)
    (0x2001_0002 << 96, 48, NotGlobal::Benchmarking),  // RFC 5180
    (0x2001 << 112, 23, NotGlobal::Protocol),          // IETF assignments: ORCHID, AMT, …
    (0x2001_0db8 << 96, 32, NotGlobal::Documentation), // RFC 3849
    (0x2002 << 112, 16, NotGlobal::Embedded),          // 6to4 (RFC 3056)
    (0x2620_004f_8000 << 80, 48, NotGlobal::Protocol), // AS112
    (0x3fff << 112, 20, NotGlobal::Documentation),     // RFC 9637
    (0x3ffe << 112, 16, NotGlobal::Reserved),          // 6bone, given back (RFC 3701)
    (0x5f00 << 112, 16, NotGlobal::Protocol),          // segment routing (RFC 9602)
    (0xfc00 << 112, 7, NotGlobal::Private),            // unique local (RFC 4193)
    (0xfe80 << 112, 10, NotGlobal::LinkLocal),
    (0xfec0 << 112, 10, NotGlobal::SiteLocal),
    (0xff00 << 112, 8, NotGlobal::Multicast),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, NotGlobal)]) {
        for (text, reason) in cases {
            let address: IpAddr = text.parse().expect(text);
            assert_eq!(not_global(address), Some(*reason), "{text}");
        }
    }

    #[test]
    fn n02_no_special_ipv4_address_is_global() {
        check(&[
            ("127.0.0.1", NotGlobal::Loopback),
            ("127.255.255.255", NotGlobal::Loopback),
            ("10.0.0.0", NotGlobal::Private),
            ("10.255.255.255", NotGlobal::Private),
            ("172.16.0.0", NotGlobal::Private),
            ("172.31.255.255", NotGlobal::Private),
            ("192.168.0.1", NotGlobal::Private),
            ("169.254.169.254", NotGlobal::LinkLocal),
            ("100.64.0.0", NotGlobal::SharedSpace),
            ("100.100.100.200", NotGlobal::SharedSpace),
            ("100.127.255.255", NotGlobal::SharedSpace),
            ("0.0.0.0", NotGlobal::Unspecified),
            ("0.1.2.3", NotGlobal::Unspecified),
            ("192.0.0.192", NotGlobal::Protocol),
            ("198.18.0.1", NotGlobal::Benchmarking),
            ("198.19.255.255", NotGlobal::Benchmarking),
            ("192.0.2.1", NotGlobal::Documentation),
            ("198.51.100.7", NotGlobal::Documentation),
            ("203.0.113.7", NotGlobal::Documentation),
            ("192.88.99.1", NotGlobal::Protocol),
            ("224.0.0.1", NotGlobal::Multicast),
            ("239.255.255.255", NotGlobal::Multicast),
            ("240.0.0.1", NotGlobal::Reserved),
            ("255.255.255.255", NotGlobal::Broadcast),
            ("168.63.129.16", NotGlobal::Platform),
        ]);
    }

    #[test]
    fn n04_no_special_ipv6_address_is_global() {
        check(&[
            ("::1", NotGlobal::Loopback),
            ("::", NotGlobal::Unspecified),
            ("::ffff:127.0.0.1", NotGlobal::Embedded),
            ("::ffff:a9fe:a9fe", NotGlobal::Embedded),
            ("::ffff:8.8.8.8", NotGlobal::Embedded),
            ("::ffff:0:127.0.0.1", NotGlobal::Embedded),
            ("::127.0.0.1", NotGlobal::Embedded),
            ("64:ff9b::7f00:1", NotGlobal::Embedded),
            ("64:ff9b:1::a00:1", NotGlobal::Embedded),
            ("64:ff9b:1:ffff::1", NotGlobal::Embedded),
            ("2002:7f00:1::", NotGlobal::Embedded),
            ("2001:0:4136:e378::1", NotGlobal::Embedded),
            ("2001:2::1", NotGlobal::Benchmarking),
            ("2001:10::1", NotGlobal::Protocol),
            ("2001:20::1", NotGlobal::Protocol),
            ("2001:1ff::1", NotGlobal::Protocol),
            ("2001:db8::1", NotGlobal::Documentation),
            ("3fff::1", NotGlobal::Documentation),
            ("3fff:fff::1", NotGlobal::Documentation),
            ("5f00::1", NotGlobal::Protocol),
            ("fc00::", NotGlobal::Private),
            ("fd00:ec2::254", NotGlobal::Private),
            ("fe80::1", NotGlobal::LinkLocal),
            ("febf::1", NotGlobal::LinkLocal),
            ("fec0::1", NotGlobal::SiteLocal),
            ("ff02::1", NotGlobal::Multicast),
            ("100::1", NotGlobal::Protocol),
            ("200::1", NotGlobal::Reserved),
            ("4000::1", NotGlobal::Reserved),
            ("64:ff9b:2::1", NotGlobal::Reserved),
        ]);
    }

    #[test]
    fn public_addresses_on_both_sides_of_every_border_are_global() {
        for text in [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "3fff:1000::1",
        ] {
            let address: IpAddr = text.parse().expect(text);
            assert_eq!(not_global(address), None, "{text}");
        }
    }
}
