import Foundation

/// A port of 127.0.0.1 on which nothing listens, and nothing else will as long as this lives: connecting is refused.
final class ClosedPort: Sendable {
  let number: UInt16
  private let descriptor: Int32

  init() throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let failed = withUnsafeMutablePointer(to: &address) { [descriptor] pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, length) != 0 || getsockname(descriptor, $0, &length) != 0
      }
    }
    number = UInt16(bigEndian: address.sin_port)
    if failed { throw DemoError("no port of 127.0.0.1 could be reserved: \(String(cString: strerror(errno)))") }
  }

  deinit { close(descriptor) }
}
