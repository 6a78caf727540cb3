import Foundation

/// POST requests over one connection and a raw socket, one at a time: the least that a delivery can take.
struct BarePost: Sendable {
  var port: UInt16

  /// Returns when each was sent. On a thread of its own, since it blocks.
  func run(first: Int, count: Int, rate: Int, bodyBytes: Int) async throws -> [UInt64] {
    try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread {
        continuation.resume(with: Result { try post(first, count, rate, bodyBytes) })
      }
    }
  }

  private func post(_ first: Int, _ count: Int, _ rate: Int, _ bodyBytes: Int) throws -> [UInt64] {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(descriptor) }
    var yes: Int32 = 1
    setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
    let connected = withLoopback(port) { connect(descriptor, $0, $1) }
    guard connected == 0 else { throw BenchError("the receiver is gone") }
    let filler = String(repeating: "x", count: max(0, bodyBytes - 40))
    var sent: [UInt64] = []
    sent.reserveCapacity(count)
    let origin = monotonicNanoseconds()
    for index in 0..<count {
      let body = #"{"n": \#(first + index), "note": "\#(filler)"}"#
      let request = Array(
        "POST /hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)".utf8
      )
      let due = origin + UInt64(index) * 1_000_000_000 / UInt64(rate)
      var until = timespec(tv_sec: Int(due / 1_000_000_000), tv_nsec: Int(due % 1_000_000_000))
      while clock_nanosleep(CLOCK_MONOTONIC, Int32(TIMER_ABSTIME), &until, nil) == EINTR {}
      sent.append(monotonicNanoseconds())
      var answer = [UInt8](repeating: 0, count: 1024)
      guard send(descriptor, request, request.count, Int32(MSG_NOSIGNAL)) == request.count,
        recv(descriptor, &answer, answer.count, 0) > 0
      else { throw BenchError("the receiver does not answer a bare POST") }
    }
    return sent
  }
}
