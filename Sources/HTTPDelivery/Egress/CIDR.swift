/// A network: an address and how many of its leading bits count.
package struct CIDR: Sendable, Hashable, CustomStringConvertible {
  package let network: IPAddress
  package let prefixLength: Int

  /// Strict: `address/length` in canonical form, with no bit set beyond the prefix. A bare address is a network of one.
  /// IPv4 networks are written as such, not in their IPv4-mapped form.
  package init(parsing text: String) throws(CIDRError) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = IPAddress(parsing: parts[0]) else {
      throw CIDRError("\(Self.quoted(text)) is not a network: write an address and a prefix length, like 10.0.0.0/8")
    }
    let width = address.family.bitWidth
    var length = width
    if parts.count == 2 {
      let digits = parts[1].utf8
      guard (1...3).contains(digits.count), digits.allSatisfy({ (0x30...0x39).contains($0) }),
        digits.count == 1 || digits.first != 0x30, let number = Int(parts[1]), number <= width
      else {
        throw CIDRError(
          "\(Self.quoted(text)) has no valid prefix length: it must be a whole number from 0 to \(width)"
        )
      }
      length = number
    }
    let network = Self.masked(address, length)
    guard network == address else {
      throw CIDRError(
        "\(Self.quoted(text)) has bits set beyond its prefix; the network that contains it is \(network)/\(length)"
      )
    }
    // No dialled address would ever be in it: they are compared as what they carry.
    guard network.family == .v4 || network.bits >> 32 != 0xFFFF || length < 96 else {
      let inner = network.embeddedV4(atBit: 96)
      throw CIDRError("\(Self.quoted(text)) is an IPv4 network in IPv6 form: write it as \(inner)/\(length - 96)")
    }
    self.network = network
    prefixLength = length
  }

  /// The network of this one address.
  init(of address: IPAddress) {
    network = address
    prefixLength = address.family.bitWidth
  }

  package func contains(_ address: IPAddress) -> Bool {
    address.family == network.family && Self.masked(address, prefixLength) == network
  }

  package var description: String { "\(network)/\(prefixLength)" }

  private static func masked(_ address: IPAddress, _ length: Int) -> IPAddress {
    let hostBits = UInt128(address.family.bitWidth - length)
    // Smart shifts: by the full width, they give zero.
    let bits = (address.bits >> hostBits) << hostBits
    return address.family == .v4 ? IPAddress(v4: UInt32(truncatingIfNeeded: bits)) : IPAddress(v6: bits)
  }

  private static func quoted(_ text: String) -> String {
    "\"" + PlainText.sanitized(text, limitBytes: 64) + "\""
  }
}

package struct CIDRError: Error, Sendable, Equatable, CustomStringConvertible {
  package let message: String
  init(_ message: String) { self.message = message }
  package var description: String { message }
}
