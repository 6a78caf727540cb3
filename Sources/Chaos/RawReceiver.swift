import EmbeddedPostgres
import Foundation
import Rig
import Synchronization
import WebhookSignature

/// Who decides on what arrives, and remembers it. Asked on the receiver's thread, in the order of the answers.
protocol Recipient: Sendable {
  /// - Parameter failing: the share of requests that shall fail at the moment; nil: as usual.
  func receive(_ arrival: RawReceiver.Arrival, failing: Double?) -> RawReceiver.Verdict
  /// A request without a valid signature, or without an event's number.
  func refuse()
}

/// The receiver behind all endpoints: raw sockets, one thread, every request's signature verified, and faults of its own.
/// So light that it is not the receiver that a loaded machine makes late.
final class RawReceiver: Sendable {
  struct Arrival: Sendable {
    var pair: Pair
    /// `webhook-id`
    var id: String
    var at: ContinuousClock.Instant
  }

  struct Verdict: Sendable {
    /// Answered 200; otherwise 500.
    var isAccepted: Bool
    var delay = Duration.zero
  }

  enum Weather: Sendable, Equatable {
    case fair
    /// This share of requests is answered 500.
    case failing(share: Double)
    /// Answers come so much later.
    case slow(milliseconds: Int)
    /// Nothing is read, and nobody is told.
    case silent
    /// New connections are closed at once.
    case refusing
  }

  private struct Control: Sendable {
    var weather = Weather.fair
    var cut: (isWanted: Bool, reset: Bool) = (false, false)
    /// What the last cut may have kept from the sender: the last answer of each connection.
    var severed: Set<Pair>?
    var isStopped = false
  }

  let port: UInt16
  let secret: String
  private let listener: Int32
  private let paths: [String]
  private let recipient: any Recipient
  private let verifier: WebhookVerifier
  private let control = Mutex(Control())

  /// - Parameters:
  ///   - paths: of the endpoints, in the order of their places.
  ///   - random: makes the secret.
  init(paths: [String], recipient: any Recipient, random: inout SeededGenerator) throws {
    self.paths = paths
    self.recipient = recipient
    secret =
      "whsec_" + Data((0..<32).map { _ in UInt8.random(in: .min ... .max, using: &random) }).base64EncodedString()
    // Clocks may be set days ahead, the database's or a dispatcher's host's.
    verifier = WebhookVerifier(keys: [try VerificationKey(parsing: secret)], tolerance: .seconds(400 * 86_400))
    port = try FreePort.find()
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    listener = socket(AF_INET, type, 0)
    let descriptor = listener
    var yes: Int32 = 1
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    guard listener >= 0, withLoopback(port, { bind(descriptor, $0, $1) }) == 0, listen(listener, 1024) == 0 else {
      throw ChaosError("no socket for a receiver: \(String(cString: strerror(errno)))")
    }
    Thread.detachNewThread { [self] in
      var loop = Loop(receiver: self)
      loop.run()
    }
  }

  func become(_ weather: Weather) { control.withLock { $0.weather = weather } }
  func stop() { control.withLock { $0.isStopped = true } }

  /// Ends all connections: politely, or with a reset. Returns what had been answered last on each: those answers may not
  /// have reached anybody.
  func cut(reset: Bool) async throws -> Set<Pair> {
    control.withLock { ($0.cut, $0.severed) = ((true, reset), nil) }
    var severed: Set<Pair>?
    try await eventually("the receiver has cut its connections", within: .seconds(30)) {
      severed = control.withLock { $0.severed }
      return severed != nil
    }
    return severed ?? []
  }

  private final class Client {
    var request = RequestBuffer()
    var last: Pair?
  }

  /// What only the receiver's thread touches.
  private struct Loop {
    let receiver: RawReceiver
    var clients: [Int32: Client] = [:]
    /// In the order of time.
    var pending: [(client: Int32, isAccepted: Bool, due: ContinuousClock.Instant)] = []
    /// The listener, then the clients.
    var polled: [pollfd]

    private static let answers = ["200 OK", "500 Internal Server Error", "401 Unauthorized"].map {
      Array("HTTP/1.1 \($0)\r\nContent-Length: 0\r\n\r\n".utf8)
    }

    init(receiver: RawReceiver) {
      self.receiver = receiver
      polled = [pollfd(fd: receiver.listener, events: Int16(POLLIN), revents: 0)]
    }

    mutating func run() {
      defer {
        for client in clients.keys { close(client) }
        close(receiver.listener)
      }
      while true {
        let control = receiver.control.withLock { control in
          defer { control.cut = (false, false) }
          return control
        }
        if control.isStopped { return }
        if control.cut.isWanted { cut(reset: control.cut.reset) }
        answerDue()
        if control.weather == .silent {
          usleep(5000)
          continue
        }
        guard poll(&polled, nfds_t(polled.count), pending.isEmpty ? 10 : 1) > 0 else { continue }
        let now = ContinuousClock.now
        // It may have changed while we waited.
        let weather = receiver.control.withLock { $0.weather }
        guard weather != .silent else { continue }
        // From the end, since what is dropped is replaced by the last.
        for index in polled.indices.reversed() where polled[index].revents != 0 {
          let descriptor = polled[index].fd
          if index == 0 {
            accept(weather)
          } else if let client = clients[descriptor], !serve(client, descriptor, weather, now) {
            drop(descriptor)
            polled.swapAt(index, polled.count - 1)
            polled.removeLast()
          }
        }
      }
    }

    /// All that wait, not one a turn: a turn takes the longer the more clients there are, and hundreds may come at once.
    private mutating func accept(_ weather: Weather) {
      while let descriptor = nextWaiting() {
        guard weather != .refusing else {
          close(descriptor)
          continue
        }
        var yes: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        clients[descriptor] = Client()
        polled.append(pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
      }
    }

    /// A connection that waits to be accepted. The listener does not block.
    private func nextWaiting() -> Int32? {
      let descriptor = Foundation.accept(receiver.listener, nil, nil)
      return descriptor >= 0 ? descriptor : nil
    }

    /// False when the connection is over.
    private mutating func serve(
      _ client: Client,
      _ descriptor: Int32,
      _ weather: Weather,
      _ now: ContinuousClock.Instant
    ) -> Bool {
      guard client.request.receive(from: descriptor) else { return false }
      while true {
        switch client.request.next(judge) {
        case .incomplete: return true
        case .malformed: return false
        case .whole(let judged):
          guard let (pair, id) = judged else {
            receiver.recipient.refuse()
            send(2, to: descriptor)
            continue
          }
          client.last = pair
          var failing: Double?
          if case .failing(let share) = weather { failing = share }
          let verdict = receiver.recipient.receive(Arrival(pair: pair, id: id, at: now), failing: failing)
          var delay = verdict.delay
          if case .slow(let milliseconds) = weather { delay += .milliseconds(milliseconds) }
          if delay > .zero {
            let due = now + delay
            let place = pending.lastIndex { $0.due <= due }.map { $0 + 1 } ?? 0
            pending.insert((descriptor, verdict.isAccepted, due), at: place)
          } else {
            send(verdict.isAccepted ? 0 : 1, to: descriptor)
          }
        }
      }
    }

    private func judge(_ request: RequestBuffer.Request) -> (Pair, String)? {
      guard let place = receiver.paths.firstIndex(where: { request.path.elementsEqual($0.utf8) }),
        let number = request.number, let id = request.id,
        (try? receiver.verifier.verify(
          id: id,
          timestamp: request.timestamp,
          signature: request.signature,
          body: request.body
        )) != nil
      else { return nil }
      return (Pair(event: number, endpoint: place), id)
    }

    private mutating func answerDue() {
      guard let first = pending.first, first.due <= .now else { return }
      let now = ContinuousClock.now
      let due = pending.prefix { $0.due <= now }
      pending.removeFirst(due.count)
      for answer in due { send(answer.isAccepted ? 0 : 1, to: answer.client) }
    }

    /// A client that is gone is noticed when it is next read from.
    private func send(_ answer: Int, to client: Int32) {
      let bytes = Self.answers[answer]
      _ = Foundation.send(client, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    private mutating func cut(reset: Bool) {
      let severed = Set(clients.values.compactMap(\.last))
      for descriptor in clients.keys {
        if reset {
          var hard = linger(l_onoff: 1, l_linger: 0)
          setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &hard, socklen_t(MemoryLayout<linger>.size))
        }
        drop(descriptor)
      }
      polled.removeSubrange(1...)
      // Those that have connected and wait to be accepted are cut, too: whoever sent something there may have given it up
      // long ago, and read now it would be answered in vain.
      while let descriptor = nextWaiting() { close(descriptor) }
      receiver.control.withLock { $0.severed = severed }
    }

    private mutating func drop(_ descriptor: Int32) {
      pending.removeAll { $0.client == descriptor }
      clients[descriptor] = nil
      close(descriptor)
    }
  }
}
