import Glibc

/// A TCP socket bound to a port of one of this host's loopback addresses.
struct LoopbackSocket: Sendable {
  let descriptor: Int32
  let port: Int

  /// - Parameters:
  ///   - address: `127.…` or `::1`.
  ///   - port: 0 for any that is free.
  /// - Returns: nil if the port is taken, or the host has no such address.
  static func bind(_ address: String, port: Int = 0) -> LoopbackSocket? {
    address.contains(":") ? bindV6(port) : bindV4(address, port)
  }

  private static func bindV4(_ text: String, _ port: Int) -> LoopbackSocket? {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(port).bigEndian
    guard inet_pton(AF_INET, text, &address.sin_addr) == 1 else { return nil }
    return bound(AF_INET, &address).map {
      LoopbackSocket(descriptor: $0, port: Int(UInt16(bigEndian: address.sin_port)))
    }
  }

  private static func bindV6(_ port: Int) -> LoopbackSocket? {
    var address = sockaddr_in6()
    address.sin6_family = sa_family_t(AF_INET6)
    address.sin6_port = UInt16(port).bigEndian
    guard inet_pton(AF_INET6, "::1", &address.sin6_addr) == 1 else { return nil }
    return bound(AF_INET6, &address).map {
      LoopbackSocket(descriptor: $0, port: Int(UInt16(bigEndian: address.sin6_port)))
    }
  }

  /// Binds a new socket and puts its real port into the address.
  private static func bound<Address>(_ family: Int32, _ address: inout Address) -> Int32? {
    let descriptor = socket(family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    var length = socklen_t(MemoryLayout<Address>.size)
    let isBound = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
      }
    }
    guard isBound else {
      close(descriptor)
      return nil
    }
    return descriptor
  }
}
