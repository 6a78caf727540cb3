/// Where deliveries may go: https to public unicast addresses, and what the operator adds.
///
/// An endpoint's URL comes from a tenant, who must not be able to aim the dispatcher at the network it runs in. The
/// check that counts is made on the socket address about to be dialled (see `EgressSocket`), after name resolution.
package struct EgressPolicy: Sendable, Hashable {
  package var allowHTTP: Bool
  /// Checked before the default rules. IPv6 forms that carry an IPv4 address are allowed by the network of the latter.
  package var allowedNetworks: [CIDR]

  package init(allowHTTP: Bool = false, allowedNetworks: [CIDR] = []) {
    self.allowHTTP = allowHTTP
    self.allowedNetworks = allowedNetworks
  }

  /// Why an address must not be dialled; nil when it may be.
  package func refusal(of address: IPAddress) -> EgressRefusal? {
    let carried = address.carriedV4
    guard !carried.isEmpty else {
      return specialEntry(for: address).map { EgressRefusal(address: address, carried: nil, entry: $0) }
    }
    for inner in carried {
      if let entry = specialEntry(for: inner) {
        return EgressRefusal(address: address, carried: inner, entry: entry)
      }
    }
    return nil
  }

  private func specialEntry(for address: IPAddress) -> SpecialPurposeNetworks.Entry? {
    guard !allowedNetworks.contains(where: { $0.contains(address) }) else { return nil }
    return SpecialPurposeNetworks.entry(for: address)
  }
}

/// An address the policy refuses, and why.
package struct EgressRefusal: Sendable, CustomStringConvertible {
  package let address: IPAddress
  /// The IPv4 address inside `address` that is the reason, when it is not `address` itself.
  package let carried: IPAddress?
  let entry: SpecialPurposeNetworks.Entry

  package var description: String {
    let subject = carried.map { "\(address) carries \($0), which" } ?? "\(address)"
    // "::/0" names no network an operator should open as a whole.
    let network =
      entry.network.prefixLength == 0
      ? CIDR(containing: address, prefixLength: address.family.bitWidth) : entry.network
    let range = entry.network.prefixLength == 0 ? "" : " (\(network))"
    return "\(subject) is \(entry.meaning)\(range); allow it with --allow-network \(network)"
  }
}

extension IPAddress {
  /// The IPv4 addresses that packets to this IPv6 address would really go to; empty for one that stands for itself.
  ///
  /// 64:ff9b:1::/48 (RFC 8215) is not taken apart: where it holds the IPv4 address is up to each operator, so any
  /// guess could be steered past. It is refused whole, unless it is allowed by its own network.
  fileprivate var carriedV4: [IPAddress] {
    guard family == .v6 else { return [] }
    switch true {
    // ::ffff:0:0/96, IPv4-mapped: the kernel dials the IPv4 address.
    case bits >> 32 == 0xFFFF: return [embeddedV4(atBit: 96)]
    // ::/96, IPv4-compatible (retired), except :: and ::1.
    case bits >> 32 == 0 && bits > 1: return [embeddedV4(atBit: 96)]
    // 64:ff9b::/96, NAT64 (RFC 6052).
    case bits >> 32 == 0x0064_FF9B_0000_0000_0000_0000: return [embeddedV4(atBit: 96)]
    // 2002::/16, 6to4 (RFC 3056).
    case bits >> 112 == 0x2002: return [embeddedV4(atBit: 16)]
    // 2001::/32, Teredo (RFC 4380): the client's address, inverted, and the server's.
    case bits >> 96 == 0x2001_0000:
      return [IPAddress(v4: ~UInt32(truncatingIfNeeded: bits)), embeddedV4(atBit: 32)]
    default: return []
    }
  }
}
