import DequeModule
import EmbeddedPostgres
import Foundation
import Synchronization

/// A server for benchmarks: raw sockets and one thread, so that nothing of its own lies between the wire and what it notes.
final class LoopbackServer: Sendable {
  enum Answer {
    case now(status: String)
    /// On the clock of `monotonicNanoseconds`; not before what was answered last.
    case later(status: String, at: UInt64)
    case never
  }

  let port: UInt16
  private let listeners: [Int32]
  private let isStopped = Atomic(false)
  private let unanswered = Atomic(0)
  /// Decides on a request, given when its first byte arrived; on the server's thread.
  private let answer: @Sendable (ReceivedRequest, UInt64) -> Answer

  /// - Parameter addresses: of the loopback network, in host byte order. All have the same port.
  init(
    addresses: [UInt32] = [0x7f00_0001],
    answer: @escaping @Sendable (ReceivedRequest, UInt64) -> Answer
  ) throws {
    port = try FreePort.find()
    self.answer = answer
    var listeners: [Int32] = []
    for address in addresses {
      let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      listeners.append(listener)
      guard listener >= 0, withLoopback(port, address, { bind(listener, $0, $1) }) == 0, listen(listener, 1024) == 0
      else {
        for listener in listeners { close(listener) }
        throw BenchError("no socket to listen on: \(String(cString: strerror(errno)))")
      }
    }
    self.listeners = listeners
  }

  /// Loopback addresses, all different: hosts of their own to whoever posts there.
  static func addresses(_ count: Int) -> [UInt32] {
    (0..<UInt32(count)).map { number in
      let (block, host) = number.quotientAndRemainder(dividingBy: 250)
      return 0x7f01_0001 + block * 256 + host
    }
  }

  /// One that takes only so many requests a second, one after the other.
  static func taking(_ perSecond: Int) throws -> LoopbackServer {
    let turn = Turn()
    return try LoopbackServer { _, _ in
      let at = turn.next.withLock { next in
        next = max(monotonicNanoseconds(), next) + 1_000_000_000 / UInt64(perSecond)
        return next
      }
      return .later(status: "204 No Content", at: at)
    }
  }

  /// When it has time again.
  private final class Turn: Sendable {
    let next = Mutex<UInt64>(0)
  }

  deinit { for listener in listeners { close(listener) } }

  /// Requests that have not been answered yet, of those that will be.
  var waiting: Int { unanswered.load(ordering: .relaxed) }

  func start() { Thread.detachNewThread { self.serve() } }
  func stop() { isStopped.store(true, ordering: .releasing) }

  private struct Pending {
    var client: Int32
    var id: UInt64
    var status: String
    var at: UInt64
  }

  private struct Client {
    /// When it connected: tells it from one that had the same descriptor.
    var id: UInt64
    var bytes: [UInt8] = []
    /// When the first byte of the request being read arrived.
    var began: UInt64 = 0
  }

  private func serve() {
    // Kept from one round to the next: there may be thousands.
    var polled = listeners.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    var clients: [Int32: Client] = [:]
    var pending = Deque<Pending>()
    defer { for client in clients.keys { close(client) } }
    while !isStopped.load(ordering: .acquiring) {
      var patience: Int32 = 200
      if let next = pending.first {
        let now = monotonicNanoseconds()
        patience = next.at <= now ? 0 : Int32(min((next.at - now) / 1_000_000 + 1, 200))
      }
      let count = poll(&polled, nfds_t(polled.count), patience)
      let now = monotonicNanoseconds()
      while let next = pending.first, next.at <= now {
        pending.removeFirst()
        // Not to somebody else, who has got the same descriptor since.
        if clients[next.client]?.id == next.id { send(next.status, to: next.client) }
      }
      defer { unanswered.store(pending.count, ordering: .relaxed) }
      guard count > 0 else { continue }
      // From the end, so that what is taken out leaves what is still to come in its place.
      for index in polled.indices.reversed() where polled[index].revents != 0 {
        let descriptor = polled[index].fd
        if index < listeners.count {
          if let client = accept(from: descriptor, now: now) {
            clients[client.descriptor] = client.client
            polled.append(pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0))
          }
        } else if var client = clients.removeValue(forKey: descriptor) {
          if read(descriptor, into: &client, now: now, &pending) {
            clients[descriptor] = client
          } else {
            close(descriptor)
            polled.swapAt(index, polled.count - 1)
            polled.removeLast()
          }
        }
      }
    }
  }

  private func accept(from listener: Int32, now: UInt64) -> (descriptor: Int32, client: Client)? {
    let client = Foundation.accept(listener, nil, nil)
    guard client >= 0 else { return nil }
    var yes: Int32 = 1
    setsockopt(client, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
    return (client, Client(id: now))
  }

  /// False when the connection is over.
  private func read(
    _ descriptor: Int32,
    into client: inout Client,
    now: UInt64,
    _ pending: inout Deque<Pending>
  ) -> Bool {
    let count = withUnsafeTemporaryAllocation(byteCount: 65_536, alignment: 1) { buffer in
      let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
      if count > 0 {
        if client.bytes.isEmpty { client.began = now }
        client.bytes.append(contentsOf: buffer[..<count])
      }
      return count
    }
    guard count > 0 else { return false }
    while let request = ReceivedRequest(client.bytes) {
      let answer = answer(request, client.began)
      client.bytes.removeFirst(request.length)
      client.began = now
      switch answer {
      case .now(let status): send(status, to: descriptor)
      case .later(let status, let at):
        pending.append(Pending(client: descriptor, id: client.id, status: status, at: at))
      case .never: break
      }
    }
    return true
  }

  /// A client that is gone is noticed when it is next read from.
  private func send(_ status: String, to client: Int32) {
    let length = status.hasPrefix("204") ? "" : "Content-Length: 0\r\n"
    let answer = Array("HTTP/1.1 \(status)\r\n\(length)\r\n".utf8)
    _ = Foundation.send(client, answer, answer.count, Int32(MSG_NOSIGNAL))
  }
}

/// A whole request at the beginning of the bytes, as libcurl writes it over HTTP/1.1. Looked at where it lies, since a
/// receiver shall cost as little as can be.
struct ReceivedRequest {
  let length: Int
  /// The value of the payload's member `n`.
  let number: Int?

  init?(_ bytes: [UInt8]) {
    let parsed = bytes.withUnsafeBytes { bytes -> (length: Int, number: Int?)? in
      guard let end = bytes.offset(of: "\r\n\r\n"),
        let field = UnsafeRawBufferPointer(rebasing: bytes[..<end]).offset(of: "\r\nContent-Length: "),
        let body = bytes.number(at: field + 18)
      else { return nil }
      let total = end + 4 + body
      guard bytes.count >= total else { return nil }
      let text = UnsafeRawBufferPointer(rebasing: bytes[(end + 4)..<total])
      return (total, text.offset(of: #""n": "#).flatMap { text.number(at: $0 + 5) })
    }
    guard let parsed else { return nil }
    (length, number) = parsed
  }
}

extension UnsafeRawBufferPointer {
  /// Where `text` first begins.
  fileprivate func offset(of text: StaticString) -> Int? {
    guard let base = baseAddress else { return nil }
    let last = count - text.utf8CodeUnitCount
    var from = 0
    while from <= last, let found = memchr(base + from, Int32(text.utf8Start[0]), last - from + 1) {
      from = UnsafeRawPointer(found) - base
      if memcmp(base + from, text.utf8Start, text.utf8CodeUnitCount) == 0 { return from }
      from += 1
    }
    return nil
  }

  /// The digits there.
  fileprivate func number(at offset: Int) -> Int? {
    let digits = self[offset...].prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    return digits.isEmpty || digits.count > 18 ? nil : digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
  }
}

/// Calls `body` with the socket address of a port, of 127.0.0.1 unless another address is named in host byte order.
func withLoopback<Result>(
  _ port: UInt16,
  _ host: UInt32 = 0x7f00_0001,
  _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
) -> Result {
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_port = port.bigEndian
  address.sin_addr.s_addr = in_addr_t(host.bigEndian)
  return withUnsafePointer(to: &address) { pointer in
    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
  }
}

/// `127.1.2.3`
func dotted(_ address: UInt32) -> String {
  stride(from: UInt32(24), through: 0, by: -8).map { "\(address >> $0 & 255)" }.joined(separator: ".")
}
