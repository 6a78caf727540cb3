import Foundation
import OutboxStore
import Postgres
import Testing

/// The race that order depends on, provoked: a cut adds the successor of a delivery while a record removes it. Either must
/// see what the other did, or the key sleeps.
@Suite struct OrderRaceTests {
  /// Both reach the endpoint's lock, which a third session holds, and go on when it lets go: nothing but the lock decides
  /// who comes first.
  @Test(arguments: ["delivered", "skipped", "held"]) func cutAndRecordMeetAtTheLock(end: String) async throws {
    try await withDatabase { database in
      let (cutter, recorder) = (try await Worker(database), try await Worker(database))
      let gate = database.client()
      let pids = [try await cutter.client.pid(), try await recorder.client.pid()]
      let endpoint = try await gate.addEndpoint(
        "ordered => true, failure_threshold => 1000000, on_dead_letter => '\(end == "held" ? "hold" : "skip")'"
      )
      let reason = end == "delivered" ? nil : "exhausted"
      for round in 0..<40 {
        let key = "k\(round)"
        try await gate.publish(1, key: key, from: 1)
        _ = try await cutter.drain()
        let head = try await recorder.claim([endpoint])
        #expect(head.map(\.event.number) == [1])
        try await gate.publish(1, key: key, from: 2)

        try await gate.execute("BEGIN; SELECT pg_advisory_xact_lock(1296126550, outbox.lock_number(\(endpoint)))")
        // Who queues first is first: in turn.
        async let first: Void =
          round % 2 == 0
          ? cutUntilParked(cutter) : recordAll(recorder, head, reason)
        try await database.untilBlocked(pids[round % 2])
        async let second: Void =
          round % 2 == 0
          ? recordAll(recorder, head, reason) : cutUntilParked(cutter)
        try await database.untilBlocked(pids[1 - round % 2])
        try await gate.execute("COMMIT")
        _ = try await (first, second)

        if end == "held" {
          #expect(try await recorder.claim([endpoint]).isEmpty, "round \(round)")
          try await gate.execute("SELECT outbox.discard(id) FROM outbox.dead_letter WHERE seq IS NOT NULL")
        }
        let next = try await recorder.claim([endpoint])
        #expect(next.map(\.event.number) == [2], "round \(round)")
        try await recorder.record(next.map { $0.outcome() })
      }
      #expect(try await gate.int("SELECT count(*) FROM outbox.delivery") == 0)
    }
  }

  /// The same without gates, many rounds, with every way in which a head can end: nothing is lost, nothing overtakes, and
  /// no key sleeps.
  @Test func cutsAndRecordsAsFastAsTheyCan() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withDatabase { database in
      let (cutter, recorders) = (try await Worker(database), [try await Worker(database), try await Worker(database)])
      let endpoint = try await cutter.client.addEndpoint(
        "ordered => true, on_dead_letter => 'hold', failure_threshold => 1000000"
      )
      try await cutter.client.execute("SELECT outbox.stamp_subscriptions()")
      let rounds = 300
      let log = Log()
      async let publishing: Void = {
        for round in 0..<rounds {
          try await cutter.client.publish(1, key: "k\(round % 4)", from: round)
          _ = try await cutter.cut()
        }
        _ = try await cutter.drain()
      }()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for (number, recorder) in recorders.enumerated() {
          group.addTask {
            var generator = SeededGenerator(seed &+ UInt64(number))
            try await eventually("all to be delivered") {
              let claimed = try await recorder.claim([endpoint], slots: 3)
              var outcomes: [Outcome] = []
              for one in claimed {
                switch Int.random(in: 0..<10, using: &generator) {
                case 0, 1: outcomes.append(one.outcome(.failed))
                case 2: outcomes.append(one.outcome(.failed, reason: "exhausted"))
                default:
                  outcomes.append(one.outcome())
                  await log.note(one.event.number)
                }
              }
              if !outcomes.isEmpty { try await recorder.record(outcomes) }
              if claimed.isEmpty { _ = try await recorder.client.rows("SELECT outbox.redrive_where(\(endpoint))") }
              return await log.numbers.count == rounds
            }
          }
        }
        try await group.waitForAll()
      }
      try await publishing
      let numbers = await log.numbers
      for key in 0..<4 {
        let ofKey = numbers.filter { $0 % 4 == key }
        #expect(ofKey == ofKey.sorted(), "key \(key)")
      }
      #expect(try await cutter.client.int("SELECT count(*) FROM outbox.delivery") == 0)
      #expect(try await cutter.client.rows("SELECT missing FROM outbox.conservation('-infinity')") == [["0"]])
    }
  }

  /// Two thousand keys, of which every tenth has a head that fails for good: those wait, and all others go on.
  @Test func thousandsOfKeysProgressWhileSomeHeadsFail() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint(
        "ordered => true, on_dead_letter => 'hold', failure_threshold => 1000000, failure_rate => NULL"
      )
      try await worker.client.execute(
        """
        INSERT INTO outbox.event (type, key, payload)
        SELECT 't', 'k' || k, jsonb_build_object('n', k + 10000 * i) FROM generate_series(1, 3) i, generate_series(0, 1999) k
        """
      )
      _ = try await worker.drain()
      var last: [Int: Int] = [:]
      var claims = 0
      while case let claimed = try await worker.claim([endpoint], slots: 500), !claimed.isEmpty {
        claims += 1
        #expect(Set(claimed.map(\.event.key)).count == claimed.count, "one of each key at a time")
        for one in claimed where one.event.number % 10 != 0 {
          let (turn, key) = one.event.number.quotientAndRemainder(dividingBy: 10_000)
          #expect(last[key, default: 0] == turn - 1)
          last[key] = turn
        }
        try await worker.record(
          claimed.map { $0.event.number % 10 == 0 ? $0.outcome(.failed, reason: "exhausted") : $0.outcome() }
        )
      }
      #expect(last.count == 1800 && last.values.allSatisfy { $0 == 3 })
      #expect(claims <= 14, "the keys go on side by side")
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 400)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter WHERE seq IS NOT NULL") == 200)
      let found = try await worker.client.findings().filter {
        $0.finding == "held keys" || $0.finding == "sleeping key"
      }
      #expect(found.count == 1 && found[0].detail.hasPrefix("200 dead letters hold their keys"))
    }
  }

  private func cutUntilParked(_ cutter: Worker) async throws {
    var parked = 0
    try await eventually("a cut") {
      parked = try await cutter.cut()?.parked ?? 0
      return parked > 0
    }
    #expect(parked == 1)
  }

  private func recordAll(_ recorder: Worker, _ claimed: [Claimed], _ reason: String?) async throws {
    try await recorder.record(claimed.map { $0.outcome(reason == nil ? .delivered : .failed, reason: reason) })
  }
}

private actor Log {
  private(set) var numbers: [Int] = []
  func note(_ number: Int) { numbers.append(number) }
}
