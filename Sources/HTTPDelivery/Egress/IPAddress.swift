import Glibc

/// An IPv4 or IPv6 address.
package struct IPAddress: Sendable, Hashable {
  package enum Family: Sendable, Hashable {
    case v4, v6

    package var bitWidth: Int { self == .v4 ? 32 : 128 }
  }

  package let family: Family
  /// The address as a number; an IPv4 address occupies the low 32 bits.
  package let bits: UInt128

  package init(v4 bits: UInt32) {
    family = .v4
    self.bits = UInt128(bits)
  }

  package init(v6 bits: UInt128) {
    family = .v6
    self.bits = bits
  }

  /// The canonical text forms only, as `inet_pton` reads them: no zone, no brackets, no octal or short IPv4 forms.
  package init?(parsing text: some StringProtocol) {
    let text = String(text)
    // A zero byte would end the C string early and let the rest pass unread.
    guard !text.utf8.contains(0) else { return nil }
    var v4 = in_addr()
    var v6 = in6_addr()
    if inet_pton(AF_INET, text, &v4) == 1 {
      self.init(v4: UInt32(bigEndian: v4.s_addr))
    } else if inet_pton(AF_INET6, text, &v6) == 1 {
      self.init(v6: withUnsafeBytes(of: v6) { Self.number($0) })
    } else {
      return nil
    }
  }

  /// The address of a socket; nil for families other than IPv4 and IPv6, or a structure cut short.
  package init?(socketAddress: UnsafeRawPointer, length: Int) {
    guard length >= MemoryLayout<sa_family_t>.size else { return nil }
    let storage = UnsafeRawBufferPointer(start: socketAddress, count: length)
    switch Int32(socketAddress.loadUnaligned(as: sockaddr.self, ifAtLeast: length)?.sa_family ?? 0) {
    case AF_INET where length >= MemoryLayout<sockaddr_in>.size:
      self.init(v4: UInt32(bigEndian: storage.loadUnaligned(as: sockaddr_in.self).sin_addr.s_addr))
    case AF_INET6 where length >= MemoryLayout<sockaddr_in6>.size:
      let address = storage.loadUnaligned(as: sockaddr_in6.self).sin6_addr
      self.init(v6: withUnsafeBytes(of: address) { Self.number($0) })
    default:
      return nil
    }
  }

  private static func number(_ networkOrder: UnsafeRawBufferPointer) -> UInt128 {
    networkOrder.reduce(0) { $0 << 8 | UInt128($1) }
  }

  /// The IPv4 address in 32 of the bits of an IPv6 address, counted from the left.
  func embeddedV4(atBit offset: Int) -> IPAddress {
    IPAddress(v4: UInt32(truncatingIfNeeded: bits >> UInt128(96 - offset)))
  }
}

extension UnsafeRawPointer {
  fileprivate func loadUnaligned<T: BitwiseCopyable>(as type: T.Type, ifAtLeast length: Int) -> T? {
    length >= MemoryLayout<T>.size ? loadUnaligned(as: type) : nil
  }
}

extension IPAddress: CustomStringConvertible {
  package var description: String {
    // INET6_ADDRSTRLEN, the longest text form.
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 46) { text in
      guard let start = text.baseAddress else { return "?" }
      switch family {
      case .v4:
        var address = in_addr(s_addr: UInt32(truncatingIfNeeded: bits).bigEndian)
        return inet_ntop(AF_INET, &address, start, 46).map { String(cString: $0) } ?? "?"
      case .v6:
        var address = in6_addr()
        withUnsafeMutableBytes(of: &address) { $0.storeBytes(of: bits.bigEndian, as: UInt128.self) }
        return inet_ntop(AF_INET6, &address, start, 46).map { String(cString: $0) } ?? "?"
      }
    }
  }
}
