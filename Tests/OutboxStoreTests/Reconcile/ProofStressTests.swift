import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Testing

/// The proof beside everything it is about: it never calls missing what is not, and misses no event.
@Suite(.serialized) struct ProofStressTests {
  @Test func proofRaisesNoFalseAlarmBesidePublishersAndDispatchers() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withDatabase { database in
      let auditor = database.client()
      let endpoints = [
        try await auditor.addEndpoint("event_types => '{direct}', max_in_flight => 100"),
        try await auditor.addEndpoint("ordered => true"), try await auditor.addEndpoint("filter => '$.payload.n < 15'"),
      ]
      try await auditor.execute("SELECT outbox.stamp_subscriptions()")
      let (publishing, delivering) = (Running(), Running())
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          try await withThrowingTaskGroup(of: Void.self) { writers in
            for writer in 0..<5 {
              writers.addTask {
                var publisher = Publisher(database, writer, SeededGenerator(seed &+ UInt64(writer)))
                try await publisher.run(30)
              }
            }
            try await writers.waitForAll()
          }
          publishing.end()
        }
        group.addTask {
          try await withThrowingTaskGroup(of: Void.self) { dispatchers in
            for number in 0..<2 {
              dispatchers.addTask {
                let random = SeededGenerator(seed &+ 100 &+ UInt64(number))
                try await dispatch(database, endpoints, random, until: publishing)
              }
            }
            try await dispatchers.waitForAll()
          }
          delivering.end()
        }
        for prover in 0..<2 {
          group.addTask {
            try await prove(database, SeededGenerator(seed &+ 200 &+ UInt64(prover)), until: delivering)
          }
        }
        try await group.waitForAll()
      }
      _ = try await auditor.proveAll()
      try await auditor.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
      // Row by row the ledger says what the tables say.
      let (events, delivered) = (
        try await auditor.int("SELECT count(*) FROM outbox.event"),
        try await auditor.int(
          "SELECT count(DISTINCT (event_id, endpoint_id)) FROM outbox.attempt WHERE outcome = 'delivered'"
        )
      )
      let dead = try await auditor.int("SELECT count(*) FROM outbox.dead_letter")
      let owed = try await auditor.int(
        "SELECT sum(1 + (type = 'direct')::int + ((payload ->> 'n')::int < 15)::int) FROM outbox.event"
      )
      #expect(delivered + dead == owed)
      let books = try await auditor.books()[0]
      #expect(
        books.dropLast(2) == ["\(events)", "\(owed)", "\(delivered)", "0", "0", "\(dead)", "0"] && books[8] == "0"
      )
      #expect(try await auditor.int("SELECT count(*) FROM outbox.proof WHERE due_at IS NOT NULL") == 0)
    }
  }

  /// Cuts and records are not waited for to be on disk; the ledger is. What a crash takes back, it never counted.
  @Test func crashTakesNothingBackThatTheLedgerCounts() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withOwnServer { database in
      var generator = SeededGenerator(seed)
      try await database.client().addEndpoint()
      try await database.client().execute("SELECT outbox.stamp_subscriptions()")
      for round in 0..<4 {
        let proofs = Int.random(in: 2...12, using: &generator)
        let counted = Counter()
        await withTaskGroup(of: Void.self) { group in
          group.addTask {
            let client = database.client()
            while (try? await client.publish(5)) != nil {}
          }
          group.addTask {
            guard let worker = try? await Worker(database) else { return }
            _ = try? await worker.client.execute("SET synchronous_commit = off")
            while true {
              guard let cut = try? await worker.cut() else {
                if (try? await worker.client.execute("SELECT 1")) == nil { return }
                continue
              }
              guard let batch = cut.batch else { continue }
              guard (try? await worker.record(cut.outcomes(), finished: [batch])) != nil else { return }
            }
          }
          group.addTask {
            let client = database.client()
            while let done = try? await client.proveAll(20) { counted.add(done) }
          }
          group.addTask {
            try? await eventually("\(proofs) proofs", within: .seconds(30)) { counted.value >= proofs }
            try? await database.server.halt(.immediate)
          }
        }
        try await database.server.resume()
        let client = database.client()
        let ledger = "SELECT coalesce(sum(delivered), 0) FROM outbox.proof"
        let history = "SELECT count(DISTINCT event_id) FROM outbox.attempt WHERE outcome = 'delivered'"
        #expect(try await client.int(ledger) <= client.int(history), "round \(round)")
        #expect(try await client.int("SELECT count(*) FROM outbox.proof") > 1)
        try await client.store { try $0.proveAgain(try $0.period(since: "-infinity")) }
        #expect(try await client.missing() == [], "round \(round)")
      }
    }
  }

  private func dispatch(
    _ database: Database,
    _ endpoints: [Int64],
    _ random: SeededGenerator,
    until publishing: Running
  )
    async throws
  {
    var random = random
    let worker = try await Worker(database)
    var idle = 0
    while idle < 3 {
      let ended = !publishing.isRunning
      let cut = try await worker.cut(
        events: .random(in: 1...200, using: &random),
        direct: .random(in: 0...100, using: &random)
      )
      var outcomes = cut?.outcomes() ?? []
      for index in outcomes.indices where Int.random(in: 0..<5, using: &random) == 0 {
        outcomes[index].kind = .failed
        outcomes[index].retryIn = .zero
      }
      if let batch = cut?.batch { try await worker.record(outcomes, finished: [batch]) }
      let claimed = try await worker.claim(endpoints)
      try await worker.record(
        claimed.map { one in
          switch Int.random(in: 0..<10, using: &random) {
          case 0: one.outcome(.failed)
          case 1: one.outcome(.failed, reason: "exhausted")
          default: one.outcome()
          }
        }
      )
      try await worker.client.execute(
        "UPDATE outbox.endpoint_health SET probe_at = clock_timestamp() WHERE probe_at IS NOT NULL"
      )
      let waits = try await worker.client.int("SELECT count(*) FROM outbox.delivery")
      idle = cut == nil && claimed.isEmpty && ended && waits == 0 ? idle + 1 : 0
    }
  }

  private func prove(_ database: Database, _ random: SeededGenerator, until delivering: Running) async throws {
    var random = random
    let client = database.client()
    while delivering.isRunning {
      _ = try await client.proveAll(.random(in: 1...150, using: &random), steps: 5)
      if Int.random(in: 0..<4, using: &random) == 0 {
        try await client.store { try $0.proveAgain(try $0.period(since: "1 hour")) }
      }
      let alarm = try await client.rows(
        "SELECT missing, missing_pairs[1] FROM outbox.conservation('-infinity') WHERE missing <> 0"
      )
      #expect(alarm.isEmpty, "\(alarm)")
    }
  }
}

/// True until it is ended, from any task.
private final class Running: @unchecked Sendable {  // `running` is only touched under the lock.
  private let lock = NSLock()
  private var running = true
  var isRunning: Bool { lock.withLock { running } }
  func end() { lock.withLock { running = false } }
}

private final class Counter: @unchecked Sendable {  // `count` is only touched under the lock.
  private let lock = NSLock()
  private var count = 0
  var value: Int { lock.withLock { count } }
  func add(_ more: Int) { lock.withLock { count += more } }
}
