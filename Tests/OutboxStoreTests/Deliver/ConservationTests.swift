import Foundation
import OutboxStore
import Postgres
import Testing

/// Nothing lost and nothing double, whatever the dispatchers do and whenever they die.
@Suite struct ConservationTests {
  @Test func everyPairIsAccountedForAfterRandomSteps() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withDatabase { database in
      var generator = SeededGenerator(seed)
      let admin = database.client()
      var endpoints: [Int64] = []
      for settings in ["", "ordered => true", "failure_threshold => 2", "event_types => '{t.*}'"] {
        endpoints.append(try await admin.addEndpoint(settings))
      }
      try await admin.execute("SELECT outbox.stamp_subscriptions()")
      var players = [try await Player(database), try await Player(database), try await Player(database)]
      var published = 0
      for step in 0..<400 {
        let one = Int.random(in: 0..<players.count, using: &generator)
        switch Int.random(in: 0..<20, using: &generator) {
        case 0...4:
          let count = Int.random(in: 1...20, using: &generator)
          try await admin.publish(
            count,
            type: step % 2 == 0 ? "t.x" : "u",
            key: step % 3 == 0 ? nil : "k\(step % 5)"
          )
          published += count
        case 5...9: try await players[one].cut(&generator)
        case 10...12: try await players[one].claim(endpoints, &generator)
        case 13...16: try await players[one].record(&generator)
        case 17: try await players[one].resync(&generator)
        case 18:  // dies, and is taken over by another
          try await players[one].worker.expire()
          _ = try await admin.store { try $0.recover() }
          players[one] = try await Player(database)
        default:
          try await admin.execute(
            """
            UPDATE outbox.endpoint_health SET probe_at = clock_timestamp() WHERE probe_at IS NOT NULL;
            SELECT outbox.redrive_where(reason => 'exhausted')
            """
          )
        }
        if step % 50 == 49 { try await expectNothingMissing(admin, "step \(step)") }
      }
      try await finish(&players, admin, endpoints)

      let expected = try await admin.int(
        "SELECT 3 * count(*) + count(*) FILTER (WHERE type = 't.x') FROM outbox.event"
      )
      #expect(try await admin.int("SELECT count(*) FROM outbox.event") == published)
      let settled = "SELECT count(*), count(DISTINCT (event_id, endpoint_id)) FROM outbox.delivery_status"
      #expect(try await admin.rows(settled) == [["\(expected)", "\(expected)"]])
      #expect(try await admin.int("SELECT count(*) FROM outbox.delivery") == 0)
      #expect(try await admin.int("SELECT count(*) FROM outbox.batch") == 0)
      // A second delivery needs an earlier try whose outcome was lost.
      let doubles = """
        SELECT count(*) FROM (SELECT FROM outbox.attempt GROUP BY event_id, endpoint_id
          HAVING count(*) FILTER (WHERE outcome = 'delivered') > 1) x
        """
      #expect(try await admin.int(doubles) == 0)
    }
  }

  private func expectNothingMissing(_ client: Client, _ when: String) async throws {
    let counts = try await client.rows(
      "SELECT missing, pairs = delivered + waiting + in_flight + dead FROM outbox.conservation('-infinity')"
    )
    #expect(counts == [["0", "t"]], "\(when)")
  }

  /// Delivers all that is left.
  private func finish(_ players: inout [Player], _ client: Client, _ endpoints: [Int64]) async throws {
    var generator = SeededGenerator(1)
    for index in players.indices {
      while !players[index].held.isEmpty { try await players[index].record(&generator, all: true) }
    }
    for endpoint in endpoints { try await client.execute("SELECT outbox.resume(\(endpoint))") }
    var idle = 0
    while idle < 3 {
      try await players[0].cut(&generator)
      try await players[0].claim(endpoints, &generator)
      idle = players[0].held.isEmpty ? idle + 1 : 0
      try await players[0].record(&generator, all: true)
    }
    try await expectNothingMissing(client, "the end")
  }
}

/// A dispatcher that keeps what it holds and reports it in random order, with random outcomes.
private struct Player {
  let worker: Worker
  var held: [Outcome] = []
  private var openPairs: [Int64: Int] = [:]

  init(_ database: Database) async throws { worker = try await Worker(database) }

  mutating func cut(_ generator: inout SeededGenerator) async throws {
    let cut = try await worker.cut(
      events: .random(in: 1...40, using: &generator),
      direct: .random(in: 0...30, using: &generator),
      perEndpoint: .random(in: 0...15, using: &generator)
    )
    guard let cut, let batch = cut.batch else { return }
    openPairs[batch] = cut.pairs.count
    held += cut.outcomes()
  }

  mutating func claim(_ endpoints: [Int64], _ generator: inout SeededGenerator) async throws {
    held += try await worker.claim(endpoints, slots: .random(in: 1...20, using: &generator)).map { $0.outcome() }
  }

  mutating func record(_ generator: inout SeededGenerator, all: Bool = false) async throws {
    held.shuffle(using: &generator)
    var outcomes = Array(held.prefix(all ? held.count : .random(in: 0...20, using: &generator)))
    held.removeFirst(outcomes.count)
    var finished: [Int64] = []
    for index in outcomes.indices {
      if let batch = outcomes[index].batch {
        openPairs[batch]! -= 1
        if openPairs[batch] == 0 { finished.append(batch) }
      }
      guard !all else { continue }
      switch Int.random(in: 0..<10, using: &generator) {
      case 0, 1:
        outcomes[index].kind = .failed
        outcomes[index].retryIn = .zero
      case 2:
        outcomes[index].kind = .failed
        outcomes[index].reason = "exhausted"
      case 3:
        outcomes[index].kind = .returned
        outcomes[index].attempt -= 1
        outcomes[index].retryIn = .zero
      default: break
      }
    }
    let again = Bool.random(using: &generator)
    try await worker.record(outcomes, finished: finished, again: again)
    if again, !outcomes.isEmpty { try await worker.record(outcomes, finished: finished, again: true) }
  }

  /// Forgets a part of what it holds, as if the reply had been lost.
  mutating func resync(_ generator: inout SeededGenerator) async throws {
    var kept: [Outcome] = []
    for outcome in held {
      if Bool.random(using: &generator) {
        kept.append(outcome)
      } else if let batch = outcome.batch {
        openPairs[batch]! -= 1
      }
    }
    held = kept
    _ = try await worker.client.store { [id = worker.id, kept] in
      try $0.resync(dispatcher: id, held: kept.map(\.delivery))
    }
  }
}
