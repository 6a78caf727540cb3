import Foundation
import Receiver
import Testing

@Suite(.timeLimit(.minutes(2))) struct ReceiverLifecycleTests {
  @Test func hangingHandlerDelaysNobodyElse() async throws {
    let (hanging, release) = (Gate(), Gate())
    let receiver = Receiver(port: 0, verifier: nil) { delivery in
      if delivery.path == "/hang" {
        hanging.open()
        await release.wait()
      }
      return .ok
    }
    try await withReceiver(receiver) { port in
      async let held = onThread { try HTTPConnection(port: port).post("/hang").status }
      await hanging.wait()
      let others = try await onThread { try (0..<50).map { _ in try HTTPConnection(port: port).post("/").status } }
      #expect(others == Array(repeating: 200, count: 50))
      release.open()
      #expect(try await held == 200)
    }
  }

  @Test func runReturnsWhenCancelledThoughAHandlerIgnoresIt() async throws {
    let (hanging, release) = (Gate(), Gate())
    let receiver = Receiver(port: 0, verifier: nil) { _ in
      hanging.open()
      await release.wait()
      return .ok
    }
    let running = Task { try await receiver.run() }
    let port = try await receiver.waitUntilListening()
    // Keeps its connection open while the receiver stops.
    async let held = onThread { try? HTTPConnection(port: port).post("/").status }
    await hanging.wait()
    running.cancel()
    try await running.value
    // The port is free again, though the handler still hangs: another can listen on it.
    let successor = Receiver(port: port, verifier: nil) { _ in .ok }
    let status = try await withReceiver(successor) { port in
      try await onThread { try HTTPConnection(port: port).post("/").status }
    }
    #expect(status == 200)
    release.open()
    _ = try await held
  }

  @Test func hangEndsWhenTheClientGivesUp() async throws {
    let log = Log<String>()
    let receiver = Receiver(port: 0, verifier: nil) { delivery in
      log.append(delivery.path)
      return delivery.path == "/hang" ? .hang : .ok
    }
    try await withReceiver(receiver) { port in
      // Clients that give up leave no connection behind: count this process's sockets on the receiver's port.
      try await onThread {
        let connections = try (0..<20).map { _ in try HTTPConnection(port: port) }
        for connection in connections { try connection.send(method: "POST", "/hang", body: []) }
        let other = try HTTPConnection(port: port)
        while log.all.count < 20 { #expect(try other.post("/").status == 200) }
        #expect(openServerSockets(port: port) >= 21)
        for connection in connections { connection.close() }
        let deadline = ContinuousClock.now + .seconds(60)
        while openServerSockets(port: port) > 1, ContinuousClock.now < deadline { _ = try other.post("/") }
        #expect(openServerSockets(port: port) == 1)
      }
    }
  }

  @Test func hangEndsWhenTheReceiverStops() async throws {
    let hanging = Gate()
    let receiver = Receiver(port: 0, verifier: nil) { _ in
      hanging.open()
      return .hang
    }
    let running = Task { try await receiver.run() }
    let port = try await receiver.waitUntilListening()
    async let answer = onThread { try? HTTPConnection(port: port).post("/").status }
    await hanging.wait()
    running.cancel()
    try await running.value
    let status = try await answer
    // Closed without an answer or told that there will be none; never told that all is well.
    #expect(status == nil || status == 503 || status == 500)
  }

  @Test func takenPortIsAClearError() async throws {
    let first = Receiver(port: 0, verifier: nil) { _ in .ok }
    try await withReceiver(first) { port in
      let second = Receiver(port: port, verifier: nil) { _ in .ok }
      let error = await #expect(throws: ReceiverError.portInUse(port: port)) { try await second.run() }
      #expect(
        error?.description
          == "port \(port) is already in use by another process; choose another with --port"
      )
      await #expect(throws: ReceiverError.portInUse(port: port)) { try await second.waitUntilListening() }
    }
  }

  @Test(arguments: ["256.0.0.1", "nonsense", "192.0.2.1", "::zz", ""])
  func foreignAddressIsAClearError(host: String) async throws {
    let receiver = Receiver(host: host, port: 0, verifier: nil) { _ in .ok }
    await #expect(throws: ReceiverError.addressUnavailable(host: host)) { try await receiver.run() }
  }

  @Test func receiverRunsOnce() async throws {
    let receiver = Receiver(port: 0, verifier: nil) { _ in .ok }
    try await withReceiver(receiver) { _ in }
    await #expect(throws: ReceiverError.alreadyRun) { try await receiver.run() }
  }

  @Test func cancelledBeforeItListensReturnsAtOnce() async throws {
    for _ in 0..<50 {
      let receiver = Receiver(port: 0, verifier: nil) { _ in .ok }
      let running = Task { try await receiver.run() }
      running.cancel()
      try await running.value
    }
  }

  @Test func waitingForThePortCanBeCancelled() async throws {
    let receiver = Receiver(port: 0, verifier: nil) { _ in .ok }
    let waiting = Task { try await receiver.waitUntilListening() }
    waiting.cancel()
    await #expect(throws: CancellationError.self) { try await waiting.value }
  }

  @Test func brokenRequestsDoNotStopTheReceiver() async throws {
    let receiver = Receiver(port: 0, verifier: nil) { _ in .ok }
    try await withReceiver(receiver) { port in
      try await onThread {
        let texts = [
          "\r\n\r\n", "nonsense\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
          "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
          "POST / HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\nx",
          "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nshort",
          "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\nshort",
          "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
          "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nx",
          "POST \u{0}\u{7F} HTTP/1.1\r\n\r\n", "POST",
        ]
        for text in texts {
          let connection = try HTTPConnection(port: port)
          try connection.write(Array(text.utf8))
          connection.close()
        }
        #expect(try HTTPConnection(port: port).post("/").status == 200)
      }
    }
  }
}

/// How many of this process's sockets are connections that the server on `port` holds.
private func openServerSockets(port: UInt16) -> Int {
  let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
  return names.compactMap { Int32($0) }.count { descriptor in
    var address = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    func isPort(_ call: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32) -> Bool {
      let result = withUnsafeMutableBytes(of: &address) {
        call(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
      }
      return result == 0 && address.sin_port == port.bigEndian
    }
    return isPort({ getsockname($0, $1, $2) })
      && withUnsafeMutableBytes(of: &address) {
        getpeername(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &length)
      } == 0
  }
}
