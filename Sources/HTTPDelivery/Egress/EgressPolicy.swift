/// Where deliveries may go: https to public unicast addresses, what the operator adds, and never what he denies.
///
/// An endpoint's URL comes from a tenant, who must not be able to aim the dispatcher at the network it runs in. The
/// check of addresses that counts is made on the socket address about to be dialled (see `TransferCallbacks`), after
/// name resolution. Host names are checked whenever a URL is: when an endpoint is set up and before each request.
package struct EgressPolicy: Sendable, Hashable {
  package var allowHTTP: Bool
  /// Checked before the default rules. IPv6 forms that carry an IPv4 address are allowed by the network of the latter.
  package var allowedNetworks: [CIDR]
  /// Beat everything else. An IPv6 form that carries an IPv4 address is denied by the network of either.
  package var deniedNetworks: [CIDR]
  /// Unless empty, the only host names that may be sent to. Addresses in URLs are then refused, unless a network of
  /// `allowedNetworks` holds them.
  package var allowedHosts: [HostPattern]
  /// Beat `allowedHosts`.
  package var deniedHosts: [HostPattern]

  package init(
    allowHTTP: Bool = false,
    allowedNetworks: [CIDR] = [],
    deniedNetworks: [CIDR] = [],
    allowedHosts: [HostPattern] = [],
    deniedHosts: [HostPattern] = []
  ) {
    self.allowHTTP = allowHTTP
    self.allowedNetworks = allowedNetworks
    self.deniedNetworks = deniedNetworks
    self.allowedHosts = allowedHosts
    self.deniedHosts = deniedHosts
  }

  /// Why an address must not be dialled; nil when it may be.
  package func refusal(of address: IPAddress) -> EgressRefusal? {
    let carried = address.carriedV4
    for candidate in [address] + carried {
      if let network = deniedNetworks.first(where: { $0.contains(candidate) }) {
        let inner = candidate == address ? nil : candidate
        return EgressRefusal(address: address, carried: inner, reason: .denied(network))
      }
    }
    for candidate in carried.isEmpty ? [address] : carried {
      if let entry = specialEntry(for: candidate) {
        return EgressRefusal(address: address, carried: carried.isEmpty ? nil : candidate, reason: .special(entry))
      }
    }
    return nil
  }

  /// Why a host of a URL must not be sent to, in words; nil when its address decides.
  /// - Parameter host: as `WebhookURL.host` holds it.
  package func refusal(ofHost host: String) -> String? {
    // A trailing dot makes a name absolute; it names the same host.
    let name = host.hasSuffix(".") ? String(host.dropLast()) : host
    if let address = IPAddress(parsing: name) {
      return refusal(of: address)?.description ?? refusalByHostList(of: address)
    }
    if let pattern = deniedHosts.first(where: { $0.matches(name) }) {
      return "the host \(name) is denied by --deny-host \(pattern)"
    }
    guard allowedHosts.isEmpty || allowedHosts.contains(where: { $0.matches(name) }) else {
      return "the host \(name) is none of those that may be sent to; allow it with --allow-host \(name)"
    }
    // RFC 6761: these always mean loopback, whatever a resolver says.
    if name == "localhost" || name.hasSuffix(".localhost") {
      let loopback = [IPAddress(v4: 0x7F00_0001), IPAddress(v6: 1)]
      let refusals = loopback.compactMap { refusal(of: $0) }
      // Refused only if neither family may be dialled: which one is, the connection decides.
      if refusals.count == loopback.count { return "\(name) means this host: \(refusals[0])" }
    }
    return nil
  }

  private func refusalByHostList(of address: IPAddress) -> String? {
    let candidates = address.carriedV4.isEmpty ? [address] : address.carriedV4
    let isAllowed = candidates.allSatisfy { candidate in allowedNetworks.contains { $0.contains(candidate) } }
    guard !allowedHosts.isEmpty, !isAllowed else { return nil }
    return "\(address) is an address, and only the hosts of --allow-host may be sent to; "
      + "allow it with --allow-network \(CIDR(of: candidates[0]))"
  }

  private func specialEntry(for address: IPAddress) -> SpecialPurposeNetworks.Entry? {
    guard !allowedNetworks.contains(where: { $0.contains(address) }) else { return nil }
    return SpecialPurposeNetworks.entry(for: address)
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
