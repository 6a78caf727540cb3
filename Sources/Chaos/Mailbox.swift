import Foundation
import Receiver
import Rig
import Synchronization
import WebhookSignature

/// The receiver behind all endpoints, and its own record of what arrived. It knows nothing of the database.
final class Mailbox: Sendable {
  struct Arrival: Sendable {
    var pair: Pair
    var id: UUID
    var isAccepted: Bool
    var at: ContinuousClock.Instant
  }

  private struct State {
    var arrivals: [Arrival] = []
    var answered: Set<Pair> = []
    /// Without a valid signature, or without an event's number.
    var refused = 0
    var isCalm = false
    var random: SeededGenerator
  }

  /// Paths, in the order of the endpoints' places.
  static let paths = ["/plain", "/flaky", "/ordered", "/ordered-flaky"]
  static let ordered: Set<Int> = [2, 3]

  let secret: String
  private let record: Record
  private let receiver: Receiver

  private final class Record: Sendable {
    let state: Mutex<State>
    init(_ random: SeededGenerator) { state = Mutex(State(random: random)) }
  }

  init(random: SeededGenerator) throws {
    var random = random
    let bytes = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    secret = "whsec_" + Data(bytes).base64EncodedString()
    let record = Record(random)
    self.record = record
    let verifier = WebhookVerifier(keys: [try VerificationKey(parsing: secret)])
    receiver = Receiver(port: 0, verifier: verifier, longestReply: .seconds(10)) { Self.reply(to: $0, record) }
  }

  func run() async throws { try await receiver.run() }
  func waitUntilListening() async throws -> UInt16 { try await receiver.waitUntilListening() }

  var arrivals: [Arrival] { record.state.withLock { $0.arrivals } }
  var answered: Set<Pair> { record.state.withLock { $0.answered } }
  var answeredCount: Int { record.state.withLock { $0.answered.count } }
  var refusedCount: Int { record.state.withLock { $0.refused } }
  /// No more faults of its own.
  func calmDown() { record.state.withLock { $0.isCalm = true } }

  func arrived(since: ContinuousClock.Instant) -> Set<Pair> {
    record.state.withLock { state in Set(state.arrivals.reversed().prefix { $0.at >= since }.map(\.pair)) }
  }

  private static func reply(to delivery: ReceivedDelivery, _ record: Record) -> Reply {
    let number = number(in: delivery.body)
    // Decided and noted under one lock, so that the record is in the order of the answers.
    return record.state.withLock { state in
      guard delivery.verification == .verified, let number, let endpoint = paths.firstIndex(of: delivery.path),
        let id = delivery.webhookID.flatMap({ UUID(uuidString: $0) })
      else {
        state.refused += 1
        return Reply(status: 401)
      }
      let pair = Pair(event: number, endpoint: endpoint)
      // What was answered 200 is not refused when it comes again: that would only make it come once more.
      let fails =
        !state.isCalm && endpoint % 2 == 1 && !state.answered.contains(pair) && state.random.happens(0.05)
      let isSlow = endpoint % 2 == 1 && state.random.happens(0.1)
      let delay = Duration.milliseconds(isSlow ? Int.random(in: 20...150, using: &state.random) : 0)
      state.arrivals.append(Arrival(pair: pair, id: id, isAccepted: !fails, at: delivery.receivedAt))
      if !fails { state.answered.insert(pair) }
      return Reply(status: fails ? 500 : 200, delay: delay)
    }
  }

  /// `{"type": …, "data": {"n": 17}}` is 17.
  private static func number(in body: [UInt8]) -> Int? {
    let text = String(decoding: body, as: UTF8.self)
    return text.range(of: #""n": "#).flatMap { Int(text[$0.upperBound...].prefix(while: \.isNumber)) }
  }
}
