import Glibc
import Synchronization

/// A server on loopback that does to each connection exactly what a test says, byte by byte.
final class ScriptedServer: Sendable {
  let port: Int
  private let accepted = Atomic<Int>(0)

  var url: String { "http://127.0.0.1:\(port)/hook" }
  /// Connections accepted so far.
  var acceptedCount: Int { accepted.load(ordering: .sequentiallyConsistent) }

  /// - Parameters:
  ///   - tls: makes it speak TLS.
  ///   - script: runs on a thread of its own for each connection, which is closed when it returns.
  convenience init(tls: ScriptedTLS? = nil, script: @escaping @Sendable (Peer) -> Void) {
    let socket = LoopbackSocket.bind("127.0.0.1") ?? LoopbackSocket(descriptor: -1, port: 0)
    self.init(on: [socket], tls: tls, script: script)
  }

  /// - Parameter sockets: bound, all to the same port.
  init(on sockets: [LoopbackSocket], tls: ScriptedTLS? = nil, script: @escaping @Sendable (Peer) -> Void) {
    port = sockets[0].port
    for socket in sockets { serve(socket, tls, script) }
  }

  private func serve(_ socket: LoopbackSocket, _ tls: ScriptedTLS?, _ script: @escaping @Sendable (Peer) -> Void) {
    let listener = socket.descriptor
    precondition(listen(listener, 512) == 0, "ScriptedServer: cannot listen")
    // Lives as long as the process: a test must not lose its server to the end of a variable's use.
    Self.onThread { [self] in
      while case let descriptor = accept(listener, nil, nil), descriptor >= 0 {
        accepted.add(1, ordering: .sequentiallyConsistent)
        Self.onThread {
          // A failed handshake is the client's own affair.
          guard let peer = Peer(descriptor: descriptor, tls: tls) else { return }
          script(peer)
          peer.close()
        }
      }
    }
  }

  /// A port that refuses connections as long as this process lives: bound, so that nobody else gets it, and not listening.
  static func closedPort() -> Int {
    guard let socket = LoopbackSocket.bind("127.0.0.1") else { fatalError("no free port") }
    return socket.port
  }

  /// A port for another program to listen on: outside the range that the kernel gives to other tests meanwhile.
  static func freePort() -> Int {
    for _ in 0..<1000 {
      guard let socket = LoopbackSocket.bind("127.0.0.1", port: .random(in: 20_000..<32_000)) else { continue }
      Glibc.close(socket.descriptor)
      return socket.port
    }
    fatalError("no free port")
  }

  /// Answers every request on every connection with the same bytes, until the client closes it.
  static func answering(_ response: String) -> ScriptedServer {
    ScriptedServer { peer in
      while peer.readRequest() != nil { peer.send(response) }
    }
  }

  static func onThread(_ work: @escaping @Sendable () -> Void) {
    final class Box: Sendable {
      let work: @Sendable () -> Void
      init(_ work: @escaping @Sendable () -> Void) { self.work = work }
    }
    var thread = pthread_t()
    let context = Unmanaged.passRetained(Box(work)).toOpaque()
    let code = pthread_create(
      &thread,
      nil,
      { context in
        if let context { Unmanaged<Box>.fromOpaque(context).takeRetainedValue().work() }
        return nil
      },
      context
    )
    precondition(code == 0)
    pthread_detach(thread)
  }
}

/// One accepted connection.
final class Peer: Sendable {
  private struct State {
    var buffer: [UInt8] = []
    var isClosed = false
  }

  let descriptor: Int32
  private let session: ScriptedTLS.Session?
  private let state = Mutex(State())
  private let sent = Atomic<Int>(0)

  /// Bytes handed to the kernel so far.
  var sentBytes: Int { sent.load(ordering: .relaxed) }

  /// Nil, and closed, if the TLS handshake fails.
  init?(descriptor: Int32, tls: ScriptedTLS? = nil) {
    self.descriptor = descriptor
    // So that what the kernel takes says something about what the client has taken.
    var size: Int32 = 32 * 1024
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
    session = tls?.accept(descriptor)
    if tls != nil, session == nil {
      Glibc.close(descriptor)
      return nil
    }
  }

  /// Reads some bytes that are no request. Nil at the end of the connection.
  func readSome() -> [UInt8]? {
    if state.withLock({ $0.buffer.isEmpty }), !receive() { return nil }
    return state.withLock { state in
      defer { state.buffer = [] }
      return state.buffer
    }
  }

  /// Waits for the first bytes, and leaves them to be read.
  func peek() -> [UInt8] {
    if state.withLock({ $0.buffer.isEmpty }) { _ = receive() }
    return state.withLock { $0.buffer }
  }

  /// Reads one whole request, its body measured by `Content-Length`. Nil at the end of the connection.
  func readRequest() -> ReceivedRequest? {
    let end = Array("\r\n\r\n".utf8)
    while true {
      let buffer = state.withLock { $0.buffer }
      if let headEnd = buffer.indices.first(where: { buffer[$0...].starts(with: end) }) {
        let head = String(decoding: buffer[..<headEnd], as: UTF8.self)
        var request = ReceivedRequest(lines: head.split(separator: "\r\n").map(String.init))
        let total = headEnd + 4 + (request.header("content-length").flatMap { Int($0) } ?? 0)
        if buffer.count >= total {
          request.body = Array(buffer[(headEnd + 4)..<total])
          state.withLock { $0.buffer.removeFirst(total) }
          return request
        }
      }
      guard receive() else { return nil }
    }
  }

  func send(_ text: String) {
    send(Array(text.utf8))
  }

  /// - Returns: false when the client is gone.
  @discardableResult
  func send(_ bytes: [UInt8]) -> Bool {
    var done = 0
    while done < bytes.count {
      let count = bytes[done...].withUnsafeBytes {
        session?.write($0) ?? Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { return false }
      done += count
      sent.add(count, ordering: .relaxed)
    }
    return true
  }

  /// Says nothing more until the client closes the connection.
  func hang() {
    while receive() {}
  }

  /// Reads nothing for a while, or until the client is known to have gone. It may go unnoticed: its last word stands behind
  /// all that has not been read.
  func ignore() {
    // POLLRDHUP, which Glibc's module leaves out.
    var event = pollfd(fd: descriptor, events: 0x2000, revents: 0)
    _ = poll(&event, 1, 3000)
  }

  /// Closes with a reset instead of an orderly end.
  func reset() {
    var option = linger(l_onoff: 1, l_linger: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
    end(announced: false)
  }

  /// Closes the connection below TLS, without a word.
  func cut() { end(announced: false) }

  func close() { end(announced: true) }

  private func end(announced: Bool) {
    let wasClosed = state.withLock { state in
      defer { state.isClosed = true }
      return state.isClosed
    }
    guard !wasClosed else { return }
    if announced { session?.end() }
    Glibc.close(descriptor)
  }

  private func receive() -> Bool {
    var chunk = [UInt8](repeating: 0, count: 65_536)
    let count = session?.read(&chunk) ?? recv(descriptor, &chunk, chunk.count, 0)
    guard count > 0 else { return false }
    state.withLock { $0.buffer.append(contentsOf: chunk[..<count]) }
    return true
  }
}

struct ReceivedRequest: Sendable {
  var lines: [String]
  var body: [UInt8] = []

  /// The value of a header, by its name in lower case.
  func header(_ name: String) -> String? {
    lines.dropFirst().first { $0.lowercased().hasPrefix(name + ":") }
      .map { String($0.dropFirst(name.count + 1).drop { $0 == " " }) }
  }
}
