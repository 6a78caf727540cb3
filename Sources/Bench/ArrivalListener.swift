import EmbeddedPostgres
import Foundation
import Synchronization

/// A receiver that notes when each event's request arrives, on the clock the publisher reads too. Raw sockets and one
/// thread, so that nothing of its own lies between the wire and the note.
final class ArrivalListener: Sendable {
  let url: String
  /// First arrivals, by the number in the event's payload, in nanoseconds of CLOCK_MONOTONIC.
  private let arrivals = Mutex<[Int: UInt64]>([:])
  private let isStopped = Atomic(false)
  private let listener: Int32

  init() throws {
    let port = try FreePort.find()
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard listener >= 0, withLoopback(port, { bind(listener, $0, $1) }) == 0, listen(listener, 1024) == 0 else {
      throw BenchError("no socket to listen on: \(String(cString: strerror(errno)))")
    }
    self.listener = listener
    url = "http://127.0.0.1:\(port)/hook"
  }

  deinit { close(listener) }

  func start() { Thread.detachNewThread { self.serve() } }
  func stop() { isStopped.store(true, ordering: .releasing) }
  var all: [Int: UInt64] { arrivals.withLock { $0 } }
  func arrival(of number: Int) -> UInt64? { arrivals.withLock { $0[number] } }

  private struct Client {
    var bytes: [UInt8] = []
    /// When the first byte of the request being read arrived.
    var began: UInt64 = 0
  }

  private func serve() {
    var clients: [Int32: Client] = [:]
    defer { for client in clients.keys { close(client) } }
    while !isStopped.load(ordering: .acquiring) {
      var polled = ([listener] + clients.keys).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
      guard poll(&polled, nfds_t(polled.count), 200) > 0 else { continue }
      let now = monotonicNanoseconds()
      for entry in polled where entry.revents != 0 {
        if entry.fd == listener {
          let client = accept(listener, nil, nil)
          guard client >= 0 else { continue }
          var yes: Int32 = 1
          setsockopt(client, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
          clients[client] = Client()
        } else if var client = clients.removeValue(forKey: entry.fd) {
          if read(entry.fd, into: &client, now: now) { clients[entry.fd] = client } else { close(entry.fd) }
        }
      }
    }
  }

  /// False when the connection is over.
  private func read(_ descriptor: Int32, into client: inout Client, now: UInt64) -> Bool {
    let count = withUnsafeTemporaryAllocation(byteCount: 65_536, alignment: 1) { buffer in
      let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
      if count > 0 {
        if client.bytes.isEmpty { client.began = now }
        client.bytes.append(contentsOf: buffer[..<count])
      }
      return count
    }
    guard count > 0 else { return false }
    while let request = Request(client.bytes) {
      if let number = request.number { arrivals.withLock { $0[number] = $0[number] ?? client.began } }
      client.bytes.removeFirst(request.length)
      client.began = now
      let answer = Array("HTTP/1.1 204 No Content\r\n\r\n".utf8)
      guard send(descriptor, answer, answer.count, Int32(MSG_NOSIGNAL)) == answer.count else { return false }
    }
    return true
  }

  /// A whole request at the beginning of the bytes.
  private struct Request {
    let length: Int
    /// The value of the payload's member `n`.
    let number: Int?

    init?(_ bytes: [UInt8]) {
      let text = String(decoding: bytes, as: UTF8.self)
      guard let end = text.range(of: "\r\n\r\n") else { return nil }
      let head = text[..<end.lowerBound]
      guard let line = head.split(separator: "\r\n").first(where: { $0.lowercased().hasPrefix("content-length:") }),
        let length = Int(line.dropFirst(15).trimmingCharacters(in: .whitespaces))
      else { return nil }
      let total = head.utf8.count + 4 + length
      guard bytes.count >= total else { return nil }
      self.length = total
      let body = text[end.upperBound...]
      number = body.range(of: #""n": "#).flatMap { Int(body[$0.upperBound...].prefix(while: \.isNumber)) }
    }
  }
}
