/// An address the policy refuses, and why.
package struct EgressRefusal: Sendable, CustomStringConvertible {
  enum Reason: Sendable {
    /// Not public, and not allowed in spite of that.
    case special(SpecialPurposeNetworks.Entry)
    /// The operator denies this network.
    case denied(CIDR)
  }

  package let address: IPAddress
  /// The IPv4 address inside `address` that is the reason, when it is not `address` itself.
  package let carried: IPAddress?
  let reason: Reason

  package var description: String {
    let subject = carried.map { "\(address) carries \($0), which" } ?? "\(address)"
    switch reason {
    case .denied(let network):
      return "\(subject) is denied by --deny-network \(network)"
    case .special(let entry):
      // "::/0" names no network an operator should open as a whole.
      let isEverything = entry.network.prefixLength == 0
      let network = isEverything ? CIDR(of: address) : entry.network
      let range = isEverything ? "" : " (\(network))"
      return "\(subject) is \(entry.meaning)\(range); allow it with --allow-network \(network)"
    }
  }
}
