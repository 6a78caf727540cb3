import Foundation

/// A blocking HTTP/1.1 client over one connection, with the requests' bytes under the test's control: whether the
/// connection is kept, what is sent, when it is closed. Blocking, so it runs on a thread of its own.
final class HTTPConnection {
  struct Response {
    var status: Int
    var headers: [String: String]
    var body: String
  }

  struct ConnectionError: Error {
    var call: String
    var code: Int32
  }

  private let descriptor: Int32
  private var received: [UInt8] = []
  private var isClosed = false

  init(port: UInt16) throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw ConnectionError(call: "socket", code: errno) }
    // A test that waits for an answer that never comes must fail, not stand still.
    var timeout = timeval(tv_sec: 30, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    let result = withUnsafeBytes(of: &address) { bytes in
      connect(
        descriptor,
        bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self),
        socklen_t(MemoryLayout<sockaddr_in>.size)
      )
    }
    guard result == 0 else {
      let code = errno
      close()
      throw ConnectionError(call: "connect", code: code)
    }
  }

  deinit {
    close()
  }

  func close() {
    guard !isClosed else { return }
    isClosed = true
    _ = Foundation.close(descriptor)
  }

  func post(_ path: String, headers: [(name: String, value: String)] = [], body: [UInt8] = []) throws -> Response {
    try send(method: "POST", path, headers: headers, body: body)
    return try receive()
  }

  func send(
    method: String,
    _ path: String,
    headers: [(name: String, value: String)] = [],
    body: [UInt8]? = nil
  ) throws {
    var head = "\(method) \(path) HTTP/1.1\r\nHost: test\r\n"
    for header in headers { head += "\(header.name): \(header.value)\r\n" }
    if let body { head += "Content-Length: \(body.count)\r\n" }
    try write(Array((head + "\r\n").utf8) + (body ?? []))
  }

  func write(_ bytes: [UInt8]) throws {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        Foundation.send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { throw ConnectionError(call: "send", code: errno) }
      sent += count
    }
  }

  func receive(hasBody: Bool = true) throws -> Response {
    let head = try readHead()
    let lines = head.components(separatedBy: "\r\n")
    let status = lines[0].split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    var headers: [String: String] = [:]
    for line in lines.dropFirst() {
      let parts = line.split(separator: ":", maxSplits: 1)
      if parts.count == 2 { headers[parts[0].lowercased()] = parts[1].trimmingCharacters(in: .whitespaces) }
    }
    let length = hasBody ? headers["content-length"].flatMap { Int($0) } ?? 0 : 0
    while received.count < length { try readMore() }
    let body = String(decoding: received.prefix(length), as: UTF8.self)
    received.removeFirst(length)
    return Response(status: status, headers: headers, body: body)
  }

  private func readHead() throws -> String {
    let end = Array("\r\n\r\n".utf8)
    while true {
      if received.count >= end.count,
        let start = (0...received.count - end.count).first(where: { received[$0..<$0 + end.count].elementsEqual(end) })
      {
        let head = String(decoding: received[..<start], as: UTF8.self)
        received.removeFirst(start + end.count)
        return head
      }
      try readMore()
    }
  }

  private func readMore() throws {
    var buffer = [UInt8](repeating: 0, count: 65536)
    let count = recv(descriptor, &buffer, buffer.count, 0)
    guard count > 0 else { throw ConnectionError(call: "recv", code: count == 0 ? 0 : errno) }
    received.append(contentsOf: buffer[..<count])
  }
}

/// Runs blocking work on a thread that is not one of Swift's few.
func onThread<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await withCheckedThrowingContinuation { continuation in
    Thread.detachNewThread { continuation.resume(with: Swift.Result(catching: work)) }
  }
}
