import Foundation
import OutboxStore
import Postgres

/// The model and a real database side by side: each call is made on both, and after each both must show the same.
final class Pairing {
  let model = ModelDatabase()
  let connection: Connection
  let store: OutboxStore
  let publishers: [Connection]
  let chance: Chance
  var uuids: [Int: UUID] = [:]
  var batches: [Int64: Int] = [:]
  /// Open transactions of publishers, by session.
  var open: [Int: (tx: Int, epoch: Int, events: [EventRow])] = [:]
  /// What each dispatcher was handed and has not recorded yet.
  var held: [Int: [Holding]] = [:]
  var lastRecord: (dispatcher: Int, outcomes: [Holding.Told], finished: [Int64])?
  var dispatchers: [Int] = []
  var resyncs: [Int: Int] = [:]

  struct Holding {
    var pair: Pair
    var batch: Int64?
    var attempts: Int
    typealias Told = (outcome: Outcome, pair: Pair)
  }

  init(_ configuration: ConnectionConfiguration, seed: UInt64) throws {
    connection = try Connection(configuration)
    store = OutboxStore(connection)
    publishers = try (0..<3).map { _ in try Connection(configuration) }
    chance = Chance(seed)
    try connection.execute(Self.reset)
  }

  private static let reset = """
    TRUNCATE outbox.event, outbox.endpoint, outbox.endpoint_secret, outbox.subscription, outbox.past_subscription,
      outbox.position, outbox.dispatcher, outbox.witness, outbox.batch, outbox.delivery, outbox.attempt_single, outbox.attempt_packed,
      outbox.dead_letter, outbox.endpoint_health RESTART IDENTITY CASCADE;
    INSERT INTO outbox.position (done, target, events) VALUES (pg_current_snapshot(), pg_current_snapshot(), 0)
    """

  /// Makes so many random calls, and says how many. Throws at the first disagreement.
  func run(_ count: Int) throws -> Int {
    for _ in 0..<chance.between(1, 3) { try addEndpoint() }
    for _ in 0..<chance.between(1, 2) { _ = try register() }
    for _ in 0..<count {
      let name = try step()
      try compare(name)
    }
    return count
  }

  private func step() throws -> String {
    let dispatcher = chance.oneIn(30) ? 99 : chance.pick(dispatchers)
    switch chance.below(46) {
    case 0...4: return try publish()
    case 5...8, 40...: return try publishInTransaction()
    case 9...16: return try cut(dispatcher)
    case 17...23: return try claim(dispatcher)
    case 24...30: return try record(dispatcher)
    case 31, 32: return try resync(dispatcher)
    case 33: return try expireOrRenew(dispatcher)
    case 34: return try recover(dispatcher)
    case 35: return try chance.oneIn(2) ? register() : release(dispatcher)
    case 36: return try setState()
    case 37: return try loseWitness()
    case 38: return try waiting()
    default: return try makeDue()
    }
  }

  func event(_ id: UUID) -> Int { uuids.first { $0.value == id }?.key ?? -1 }
}
