import FlyingFox
import FlyingSocks
import Foundation
import Logging
import WebhookSignature

/// An HTTP server that takes webhooks, verifies them and lets a handler decide the answer. For `martlet receive`, the
/// demo and tests; not a gateway for the open internet.
///
/// Connections are kept alive. Every request has its own task, so a handler that hangs holds up nobody else.
package final class Receiver: Sendable {
  /// The largest body taken, unless the initialiser says otherwise. Larger ones are answered 413.
  package static let defaultBodyLimitBytes = 8 * 1024 * 1024
  /// How long a handler may take, unless the initialiser says otherwise. Longer than a sender waits.
  package static let defaultLongestReply = Duration.seconds(60)

  private let host: String
  private let port: UInt16
  private let longestReply: Duration
  private let logger: Logger
  private let httpHandler: DeliveryHTTPHandler
  private let listening = ListeningPort()
  private let runs = RunOnce()

  /// Nothing starts here; ``run()`` does.
  ///
  /// - Parameters:
  ///   - host: The IP address to listen on.
  ///   - port: The port to listen on; 0 lets the system choose, and ``waitUntilListening()`` tells which.
  ///   - verifier: Checks signatures; nil to check none.
  ///   - bodyLimitBytes: The largest body taken. Larger ones are read, dropped and answered 413.
  ///   - longestReply: After this time, 1 s to one year, FlyingFox answers 500 for a handler that has not, whether it
  ///     works, waits or hangs. Not longer than needed: every request served costs about 700 bytes until this time has
  ///     passed, because FlyingFox races each handler against a sleep, and Swift keeps a cancelled sleep until its end.
  ///   - logger: For what the HTTP server says, at debug and trace level.
  ///   - now: The time to compare timestamps with.
  ///   - handler: Called once per POST or PUT, concurrently. Should end soon when its task is cancelled.
  package init(
    host: String = "127.0.0.1",
    port: UInt16,
    verifier: WebhookVerifier?,
    bodyLimitBytes: Int = Receiver.defaultBodyLimitBytes,
    longestReply: Duration = Receiver.defaultLongestReply,
    logger: Logger = Logger(label: "martlet.receiver", factory: { _ in SwiftLogNoOpLogHandler() }),
    now: @escaping @Sendable () -> Date = { Date() },
    handler: @escaping @Sendable (ReceivedDelivery) async -> Reply
  ) {
    self.host = host
    self.port = port
    self.longestReply = min(max(longestReply, .seconds(1)), .seconds(365 * 24 * 3600))
    self.logger = logger
    httpHandler = DeliveryHTTPHandler(
      verifier: verifier,
      now: now,
      bodyLimitBytes: bodyLimitBytes,
      port: listening,
      handler: handler
    )
  }

  /// The port the receiver listens on, as soon as it does.
  ///
  /// - Throws: ``ReceiverError`` if it will never listen; `CancellationError` if the caller is cancelled.
  package func waitUntilListening() async throws -> UInt16 {
    try await listening.value
  }

  /// Serves until cancelled, and then closes the port and returns, even if a handler ignores its cancellation.
  ///
  /// - Throws: ``ReceiverError``, ``ReceiverError/portInUse(port:)`` above all. Never `CancellationError`.
  package func run() async throws {
    guard runs.start() else { throw ReceiverError.alreadyRun }
    do {
      try await serve()
      listening.resolve(.failure(.stopped))
    } catch {
      let error = ReceiverError(error, host: host, port: port)
      listening.resolve(.failure(error))
      throw error
    }
  }

  private enum Event: Sendable {
    case listening
    case ended((any Error)?)
  }

  private func serve() async throws {
    let server = try makeServer()
    let (events, feed) = AsyncStream.makeStream(of: Event.self)
    // Unstructured, because FlyingFox returns only when every handler has, and a handler may never: `run()` must not
    // wait for that. The task is cancelled below in every case.
    let serving = Task {
      do {
        try await server.run()
        feed.yield(.ended(nil))
      } catch {
        feed.yield(.ended(error))
      }
    }
    // Unstructured for the same reason: it waits for the server.
    let watching = Task {
      try await server.waitUntilListening(timeout: 3600)
      feed.yield(.listening)
    }
    defer { watching.cancel() }

    // The loop ends without an event when this task is cancelled.
    for await event in events {
      switch event {
      case .listening:
        guard let port = await server.listeningAddress?.port else { continue }
        listening.resolve(.success(port))
      case .ended(let error):
        throw error ?? SocketError.disconnected
      }
    }
    await stop(server, serving)
  }

  private func stop(_ server: HTTPServer, _ serving: Task<Void, Never>) async {
    let wasListening = await server.isListening
    serving.cancel()
    guard wasListening else {
      // Not listening yet, so there are no handlers to wait for.
      await serving.value
      return
    }
    // `stop()` closes the port before it waits for the handlers; only the first is waited for here. The task outlives
    // this call by as long as a handler ignores its cancellation.
    Task { await server.stop() }
    while await server.isListening { await Task.yield() }
  }

  private func makeServer() throws -> HTTPServer {
    func make(_ address: some SocketAddress) -> HTTPServer {
      HTTPServer(
        config: HTTPServer.Configuration(
          address: address,
          timeout: TimeInterval(longestReply.components.seconds),
          // Bodies up to the first size come in one piece; larger ones are streamed and never kept for a replay.
          sharedRequestBufferSize: 64 * 1024,
          sharedRequestReplaySize: 64 * 1024,
          pool: NoDelayPool(base: HTTPServer.defaultPool()),
          logger: ServerLogger(logger: logger)
        ),
        handler: httpHandler
      )
    }
    if host == "localhost" { return make(try sockaddr_in.inet(ip4: "127.0.0.1", port: port)) }
    return host.contains(":")
      ? make(try sockaddr_in6.inet6(ip6: host, port: port)) : make(try sockaddr_in.inet(ip4: host, port: port))
  }
}
