import Foundation
import OutboxStore
import Postgres
import Testing

/// `on_dead_letter = 'hold'`: later events of a key wait until the dead letter before them is redriven and delivered, or
/// discarded.
@Suite struct HeldKeyTests {
  private func held(_ database: Database, _ events: Int = 3) async throws -> (Worker, Int64) {
    let worker = try await Worker(database)
    let endpoint = try await worker.client.addEndpoint("ordered => true, on_dead_letter => 'hold'")
    try await worker.client.execute("SELECT outbox.stamp_subscriptions()")
    try await worker.client.publish(events, key: "k")
    try await worker.client.publish(1, key: "other", from: 100)
    _ = try await worker.cut()
    let heads = try await worker.claim([endpoint])
    #expect(heads.map(\.event.number) == [1, 100])
    try await worker.record([heads[0].outcome(.failed, reason: "exhausted"), heads[1].outcome()])
    return (worker, endpoint)
  }

  private func letter(_ worker: Worker) async throws -> Int {
    try await worker.client.int("SELECT id FROM outbox.dead_letter WHERE seq IS NOT NULL")
  }

  /// Delivers one after the other and returns their numbers.
  private func deliverAll(_ worker: Worker, _ endpoint: Int64) async throws -> [Int] {
    var order: [Int] = []
    while case let claimed = try await worker.claim([endpoint]), !claimed.isEmpty {
      #expect(Set(claimed.map(\.event.key)).count == claimed.count, "one of each key at a time")
      order += claimed.map(\.event.number)
      try await worker.record(claimed.map { $0.outcome() })
    }
    return order
  }

  @Test func deadHeadHoldsItsKeyAndOnlyThat() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      #expect(try await worker.claim([endpoint]).isEmpty)
      // New events of the key queue up behind it, those of others do not.
      try await worker.client.publish(1, key: "k", from: 4)
      try await worker.client.publish(1, key: "new", from: 200)
      try await worker.client.publish(1, key: "other", from: 101)
      _ = try await worker.drain()
      #expect(try await worker.claim([endpoint]).map(\.event.number).sorted() == [101, 200])
      #expect(try await worker.client.rows("SELECT missing FROM outbox.conservation('-infinity')") == [["0"]])
    }
  }

  /// Also where nothing waited when the head died.
  @Test func keyIsHeldThoughNothingWaitedForIt() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database, 1)
      try await worker.client.publish(2, key: "k", from: 2)
      _ = try await worker.drain()
      #expect(try await worker.claim([endpoint]).isEmpty)
      try await worker.client.execute("SELECT outbox.redrive(\(try await letter(worker)))")
      #expect(try await deliverAll(worker, endpoint) == [1, 2, 3])
    }
  }

  @Test func redrivenHeadGoesOutBeforeItsSuccessors() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      try await worker.client.publish(1, key: "k", from: 4)
      _ = try await worker.drain()
      try await worker.client.execute("SELECT outbox.redrive(\(try await letter(worker)))")
      // Dies again, and holds again.
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed, reason: "exhausted") })
      #expect(try await worker.claim([endpoint]).isEmpty)
      try await worker.client.execute("SELECT outbox.redrive_where(\(endpoint))")
      #expect(try await deliverAll(worker, endpoint) == [1, 2, 3, 4])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 0)
    }
  }

  @Test func resentAndReplayedHeadKeepsItsPlaceToo() async throws {
    for call in ["resend((SELECT event_id FROM outbox.dead_letter), 1)", "replay(1, now() - interval '1 h')"] {
      try await withDatabase { database in
        let (worker, endpoint) = try await held(database)
        try await worker.client.execute("SELECT outbox.\(call)")
        let order = try await deliverAll(worker, endpoint).filter { $0 < 100 }
        #expect(order == [1, 2, 3], "\(call)")
      }
    }
  }

  @Test func discardedHeadLetsTheNextPass() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      let letter = try await letter(worker)
      try await worker.client.execute("SELECT outbox.discard(\(letter))")
      #expect(try await deliverAll(worker, endpoint) == [2, 3])
      #expect(
        try await worker.client.value("SELECT reason FROM outbox.dead_letter WHERE id = \(letter)") == "discarded"
      )
      #expect(try await worker.client.rows("SELECT missing FROM outbox.conservation('-infinity')") == [["0"]])
    }
  }

  /// From the floor that earlier claims left.
  @Test func whatIsWokenIsFoundByTheNextClaim() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      let now = try await worker.client.store { try $0.serverTime() }
      let floor = Timestamp(microsecondsSince2000: Int64((now - 946_684_800) * 1e6))
      try await worker.client.execute("SELECT outbox.discard(\(try await letter(worker)))")
      #expect(try await worker.claim([endpoint], floors: [floor]).map(\.event.number) == [2])
    }
  }

  /// The time in which a dead letter held them is not counted against their max_age.
  @Test func waitingBehindADeadLetterMakesNobodyOld() async throws {
    for call in ["discard", "redrive"] {
      try await withDatabase { database in
        let (worker, endpoint) = try await held(database)
        try await worker.client.execute("UPDATE outbox.delivery SET created_at = created_at - interval '30 days'")
        try await worker.client.execute("SELECT outbox.\(call)(\(try await letter(worker)))")
        while case let claimed = try await worker.claim([endpoint]), !claimed.isEmpty {
          #expect(claimed[0].age < .seconds(3600))
          try await worker.record(claimed.map { $0.outcome() })
        }
        #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 0)
      }
    }
  }

  @Test(arguments: ["ordered = false", "on_dead_letter = 'skip'"]) func endOfHoldingLetsAllPass(change: String)
    async throws
  {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      try await worker.client.execute("UPDATE outbox.endpoint SET \(change)")
      var order: [Int] = []
      while case let claimed = try await worker.claim([endpoint]), !claimed.isEmpty {
        order += claimed.map(\.event.number)
        try await worker.record(claimed.map { $0.outcome() })
      }
      #expect(order == [2, 3])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter WHERE seq IS NOT NULL") == 0)
    }
  }

  @Test func disabledEndpointKeepsItsHeldKeysAndADeletedOneLetsGo() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      try await worker.client.execute("SELECT outbox.disable(\(endpoint)), outbox.resume(\(endpoint))")
      #expect(try await worker.claim([endpoint]).isEmpty)
      _ = try await letter(worker)
      try await worker.client.execute("SELECT outbox.delete_endpoint(\(endpoint), discard_waiting => true)")
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter WHERE seq IS NOT NULL") == 0)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter") == 3)
    }
  }

  @Test func retentionLeavesADeadLetterThatHoldsItsKey() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      try await worker.client.execute("UPDATE outbox.dead_letter SET died_at = died_at - interval '200 days'")
      _ = try await worker.client.rows("SELECT outbox.maintain()")
      let found = try await worker.client.onlyFinding()
      #expect(found.severity == "warning" && found.finding == "held keys")
      #expect(found.detail.contains("1 dead letters hold their keys") && found.detail.contains("2 later events wait"))
      #expect(try await worker.client.rows(found.statements[2]).count == 1)
      try await worker.client.execute(found.statements[1])
      #expect(try await worker.client.findings().map(\.severity) == ["ok"])
      #expect(try await deliverAll(worker, endpoint) == [2, 3])
      _ = try await worker.client.proveAll()
      _ = try await worker.client.rows("SELECT outbox.maintain()")
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter") == 0)
    }
  }

  @Test func remedyOfTheFindingRedrives() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      let found = try #require(try await worker.client.findings().first { $0.finding == "held keys" })
      try await worker.client.execute(found.statements[0])
      #expect(try await deliverAll(worker, endpoint) == [1, 2, 3])
    }
  }

  @Test func explainAndStatusNameWhatBlocks() async throws {
    try await withDatabase { database in
      let (worker, _) = try await held(database)
      let letter = try await letter(worker)
      let blocked = try await worker.client.column(
        "SELECT blocked_by FROM outbox.delivery_status WHERE status = 'blocked'"
      )
      #expect(blocked == ["dead letter \(letter)", "dead letter \(letter)"])
      func explained(_ number: Int) async throws -> String? {
        try await worker.client.value(
          """
          SELECT x.detail FROM outbox.event e, outbox.explain(e.id) x
          WHERE e.payload ->> 'n' = '\(number)' AND x.status NOT LIKE 'attempt%'
          """
        )
      }
      #expect(try await explained(2)?.contains("outbox.discard(\(letter))") == true)
      #expect(
        try await explained(1)?.contains("later events of its key wait for it: outbox.redrive(\(letter))") == true
      )
      try await worker.client.execute("SELECT outbox.redrive(\(letter))")
      let head = try await worker.client.value("SELECT event_id FROM outbox.delivery WHERE ready")!
      #expect(
        try await worker.client.column("SELECT blocked_by FROM outbox.delivery_status WHERE status = 'blocked'")
          == ["event \(head)", "event \(head)"]
      )
      #expect(try await worker.client.int("SELECT held_keys FROM outbox.endpoint_status") == 0)
    }
  }

  /// A dispatcher that dies with a held key's redriven head in hand changes nothing.
  @Test func lostLeaseKeepsTheOrder() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await held(database)
      try await worker.client.execute("SELECT outbox.redrive(\(try await letter(worker)))")
      #expect(try await worker.claim([endpoint]).map(\.event.number) == [1])
      try await worker.expire()
      let heir = try await Worker(database)
      _ = try await heir.client.store { try $0.recover() }
      #expect(try await deliverAll(heir, endpoint) == [1, 2, 3])
    }
  }

  /// Redrive and discard of one dead letter, at once.
  @Test func operatorsWhoDisagreeDoNotWaitForEachOther() async throws {
    try await withDatabase { database in
      for _ in 0..<10 {
        let worker = try await Worker(database)
        let endpoint = try await worker.client.addEndpoint("ordered => true, on_dead_letter => 'hold'")
        try await worker.client.publish(2, key: "k")
        _ = try await worker.drain()
        try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed, reason: "exhausted") })
        let letter = try await worker.client.int(
          "SELECT id FROM outbox.dead_letter WHERE endpoint_id = \(endpoint) AND seq IS NOT NULL"
        )
        let (one, two) = (database.client(), database.client())
        async let redriven: [[String?]]? = try? one.rows("SELECT outbox.redrive(\(letter))")
        async let discarded: [[String?]]? = try? two.rows("SELECT outbox.discard(\(letter))")
        _ = await (redriven, discarded)
        let order = try await deliverAll(worker, endpoint)
        // What was discarded first and then redriven goes to the end.
        #expect([[2], [1, 2], [2, 1]].contains(order))
        try await worker.client.execute("SELECT outbox.delete_endpoint(\(endpoint))")
      }
      #expect(
        try await database.client().int("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
          == 0
      )
    }
  }
}
