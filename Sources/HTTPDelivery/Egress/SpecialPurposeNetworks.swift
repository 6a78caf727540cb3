/// The addresses that are not public unicast.
///
/// Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates), the IPv6 address
/// space registry, and RFC 5771 and 4291 for multicast.
enum SpecialPurposeNetworks {
  struct Entry: Sendable {
    let network: CIDR
    /// Completes "… is …".
    let meaning: String
  }

  /// The entry that makes an address special; nil for a public unicast address.
  static func entry(for address: IPAddress) -> Entry? {
    switch address.family {
    case .v4:
      return v4.first { $0.network.contains(address) }
    case .v6:
      if globalWithinSpecial.contains(where: { $0.contains(address) }) { return nil }
      if let entry = v6.first(where: { $0.network.contains(address) }) { return entry }
      // Only 2000::/3 has been opened for global unicast; whatever else exists one day is refused until then.
      return globalUnicast.contains(address)
        ? nil : Entry(network: everything, meaning: "outside the global unicast range 2000::/3")
    }
  }

  private static let globalUnicast = constant("2000::/3")
  private static let everything = constant("::/0")

  /// Most specific first where they overlap.
  private static let v4: [Entry] = [
    ("0.0.0.0/8", "a \"this network\" address"),
    ("10.0.0.0/8", "a private address"),
    ("100.64.0.0/10", "a shared carrier-grade NAT address"),
    ("127.0.0.0/8", "a loopback address"),
    ("169.254.0.0/16", "a link-local address, where clouds keep instance metadata"),
    ("172.16.0.0/12", "a private address"),
    ("192.0.0.0/24", "reserved for IETF protocols"),
    ("192.0.2.0/24", "a documentation address"),
    ("192.88.99.0/24", "a retired 6to4 relay address"),
    ("192.168.0.0/16", "a private address"),
    ("198.18.0.0/15", "a benchmarking address"),
    ("198.51.100.0/24", "a documentation address"),
    ("203.0.113.0/24", "a documentation address"),
    ("224.0.0.0/4", "a multicast address"),
    ("255.255.255.255/32", "the broadcast address"),
    ("240.0.0.0/4", "a reserved address"),
  ].map { Entry(network: constant($0), meaning: $1) }

  private static let v6: [Entry] = [
    ("::/128", "the unspecified address"),
    ("::1/128", "a loopback address"),
    ("64:ff9b:1::/48", "a local-use NAT64 address"),
    ("100::/64", "a discard-only address"),
    ("100:0:0:1::/64", "a dummy address"),
    ("2001:2::/48", "a benchmarking address"),
    ("2001:10::/28", "a retired ORCHID address"),
    ("2001:db8::/32", "a documentation address"),
    ("2001::/23", "reserved for IETF protocols"),
    ("3fff::/20", "a documentation address"),
    ("5f00::/16", "a segment-routing address"),
    ("fc00::/7", "a unique-local (private) address"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a retired site-local address"),
    ("ff00::/8", "a multicast address"),
  ].map { Entry(network: constant($0), meaning: $1) }

  /// Parts of 2001::/23 that the registry marks "globally reachable".
  private static let globalWithinSpecial: [CIDR] = [
    "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:3::/32", "2001:4:112::/48", "2001:20::/28",
    "2001:30::/28",
  ].map(constant)

  private static func constant(_ text: String) -> CIDR {
    do { return try CIDR(parsing: text) } catch { fatalError("SpecialPurposeNetworks: \(error.message)") }
  }
}
