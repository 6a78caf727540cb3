import Foundation

/// Looks for a loopback port that a server can keep over restarts.
package enum FreePort {
  /// Below the range that the kernel takes client ports from: while the server is down, a client's own connection
  /// could otherwise be given the very port it is trying to reach, and connect to itself.
  package static func find() throws -> UInt16 {
    let clients = (try? String(contentsOfFile: "/proc/sys/net/ipv4/ip_local_port_range", encoding: .utf8)) ?? "32768"
    let lowest = clients.split(whereSeparator: \.isWhitespace).first.flatMap { UInt16($0) } ?? 32_768
    let candidates: Range<UInt16> = lowest > 12_000 ? 10_000..<lowest : 10_000..<65_535
    for _ in 0..<100 {
      let port = UInt16.random(in: candidates)
      if isFree(port) { return port }
    }
    throw EmbeddedPostgresError.noFreePort
  }

  static func isFree(_ port: UInt16) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    // As PostgreSQL itself does, so that a connection in TIME_WAIT does not count.
    var yes: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
  }
}
