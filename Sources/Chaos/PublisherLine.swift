import Foundation

/// Between a publisher, which is a process of its own, and the checker: a byte down permits a transaction, a line of JSON
/// up says what became of it. So one transaction is under way at most, and the checker knows of each.
enum PublisherLine {
  /// The checker's end.
  final class Listener: Sendable {
    let path: String
    private let descriptor: Int32

    init(_ file: URL) throws {
      path = file.path
      descriptor = try makeSocket()
      let descriptor = descriptor
      guard try withAddress(path, { bind(descriptor, $0, $1) }) == 0, listen(descriptor, 16) == 0 else {
        throw ChaosError("no socket for publishers at \(path): \(String(cString: strerror(errno)))")
      }
    }

    deinit { close(descriptor) }

    /// Waits for one publisher; nil if none comes in time.
    func accept(within limit: Duration) -> Int32? {
      var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      guard poll(&polled, 1, Int32(limit.milliseconds)) == 1 else { return nil }
      let client = Foundation.accept(descriptor, nil, nil)
      guard client >= 0 else { return nil }
      _ = fcntl(client, F_SETFD, FD_CLOEXEC)
      return client
    }
  }

  /// Permits transactions for as long as `permit` says so (it may block), and takes what each one came to. Returns when
  /// the publisher has ended; throws if that was not because it got no more permits. Blocks.
  static func serve<Record: Decodable>(
    _ descriptor: Int32,
    permit: () -> Bool,
    take: (Record) throws -> Void
  ) throws {
    defer { close(descriptor) }
    var reader = LineReader(descriptor)
    while permit() {
      var byte: UInt8 = 1
      guard send(descriptor, &byte, 1, Int32(MSG_NOSIGNAL)) == 1, let line = try reader.next() else {
        throw ChaosError("a publisher ended by itself")
      }
      try take(JSONDecoder().decode(Record.self, from: line))
    }
    shutdown(descriptor, Int32(SHUT_WR))
    guard try reader.next() == nil else { throw ChaosError("a publisher published without a permit") }
  }

  /// The publisher's end: runs transactions for as long as they are permitted. Blocks.
  static func work<Record: Encodable>(_ path: String, transaction: () throws -> Record) throws {
    let descriptor = try makeSocket()
    defer { close(descriptor) }
    guard try withAddress(path, { connect(descriptor, $0, $1) }) == 0 else {
      throw ChaosError("nobody listens at \(path): \(String(cString: strerror(errno)))")
    }
    var byte: UInt8 = 0
    while recv(descriptor, &byte, 1, 0) == 1 {
      var line = try JSONEncoder().encode(transaction())
      line.append(UInt8(ascii: "\n"))
      try line.withUnsafeBytes { bytes in
        var sent = 0
        while sent < bytes.count {
          let count = send(descriptor, bytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
          guard count > 0 else { throw ChaosError("the checker is gone") }
          sent += count
        }
      }
    }
  }

  private struct LineReader {
    private let descriptor: Int32
    private var waiting = Data()

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    /// nil at the end.
    mutating func next() throws -> Data? {
      while true {
        if let end = waiting.firstIndex(of: UInt8(ascii: "\n")) {
          defer { waiting.removeSubrange(...end) }
          return waiting[..<end]
        }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else {
          guard waiting.isEmpty else { throw ChaosError("a publisher ended in the middle of a line") }
          return nil
        }
        waiting.append(contentsOf: buffer[..<count])
      }
    }
  }

  private static func makeSocket() throws -> Int32 {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw ChaosError("no socket: \(String(cString: strerror(errno)))") }
    return descriptor
  }

  private static func withAddress<Result>(
    _ path: String,
    _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) throws -> Result {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let fits = withUnsafeMutableBytes(of: &address.sun_path) { room in
      guard path.utf8.count < room.count else { return false }
      room.copyBytes(from: path.utf8)
      return true
    }
    guard fits else { throw ChaosError("\(path) is too long for a socket: set TMPDIR to a shorter directory") }
    return withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }
}
