import Foundation
import OutboxStore
import Postgres
import Testing

/// Ordered endpoints: of each key only the head may be sent.
@Suite struct OrderedTests {
  @Test func onlyTheHeadIsReadyAndSuccessorsFollowDeliveryAndDeath() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("ordered => true")
      try await worker.client.publish(3, key: "a", from: 1)
      try await worker.client.publish(2, key: "b", from: 11)
      #expect(try await worker.cut()?.parked == 5)
      var claimed = try await worker.claim([endpoint])
      #expect(claimed.map(\.event.number) == [1, 11])
      #expect(try await worker.claim([endpoint]).isEmpty)

      try await worker.record([claimed[0].outcome(), claimed[1].outcome(.failed)])
      claimed = try await worker.claim([endpoint])
      #expect(claimed.map(\.event.number).sorted() == [2, 11], "a failed head stays the head")
      try await worker.record(claimed.map { $0.outcome(.failed, reason: "exhausted") })
      claimed = try await worker.claim([endpoint])
      #expect(claimed.map(\.event.number).sorted() == [3, 12])
      try await worker.record(claimed.map { $0.outcome() })
      try await worker.client.publish(1, key: "a", from: 4)
      #expect(try await worker.drain().count == 1)
      #expect(try await worker.claim([endpoint]).map(\.event.number) == [4])
    }
  }

  @Test func eventsWithoutAKeyGoStraightOut() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("ordered => true")
      try await worker.client.publish(2)
      #expect(try await worker.cut()?.pairs.count == 2)
    }
  }

  /// A cut adds a successor while a record removes its predecessor: whichever comes first, the key stays awake.
  @Test func cutThatAddsASuccessorWaitsForTheRecordOfItsPredecessor() async throws {
    try await withDatabase { database in
      let (cutter, recorder) = (try await Worker(database), try await Worker(database))
      let pid = try await cutter.client.pid()
      let endpoint = try await cutter.client.addEndpoint("ordered => true")
      try await cutter.client.publish(1, key: "k", from: 1)
      _ = try await cutter.cut()
      let claimed = try await recorder.claim([endpoint])
      try await cutter.client.publish(1, key: "k", from: 2)

      try await recorder.client.execute("BEGIN")
      try await recorder.record(claimed.map { $0.outcome() })
      async let cut = cutter.cut()
      try await database.untilBlocked(pid)
      try await recorder.client.execute("COMMIT")
      #expect(try await cut?.parked == 1)
      #expect(try await recorder.claim([endpoint]).map(\.event.number) == [2])
    }
  }

  @Test func recordThatRemovesAPredecessorWaitsForTheCutOfItsSuccessor() async throws {
    try await withDatabase { database in
      let (cutter, recorder) = (try await Worker(database), try await Worker(database))
      let pid = try await recorder.client.pid()
      let endpoint = try await cutter.client.addEndpoint("ordered => true")
      try await cutter.client.publish(1, key: "k", from: 1)
      _ = try await cutter.cut()
      let claimed = try await recorder.claim([endpoint])
      try await cutter.client.publish(1, key: "k", from: 2)

      try await cutter.client.execute("BEGIN")
      #expect(try await cutter.cut()?.parked == 1)
      async let changes = recorder.record(claimed.map { $0.outcome() })
      try await database.untilBlocked(pid)
      try await cutter.client.execute("COMMIT")
      _ = try await changes
      #expect(try await recorder.claim([endpoint]).map(\.event.number) == [2])
    }
  }

  /// The same without gates: two sessions as fast as they can.
  @Test func noKeyEverFallsAsleep() async throws {
    try await withDatabase { database in
      let (cutter, recorder) = (try await Worker(database), try await Worker(database))
      let endpoint = try await cutter.client.addEndpoint("ordered => true")
      let rounds = 150
      async let publishing: Void = {
        for round in 0..<rounds {
          try await cutter.client.publish(1, key: "k\(round % 3)", from: round)
          _ = try await cutter.cut()
        }
      }()
      var order: [Int: [Int]] = [:]
      var delivered = 0
      try await eventually("all to be delivered") {
        let claimed = try await recorder.claim([endpoint])
        for one in claimed { order[one.event.number % 3, default: []].append(one.event.number) }
        if !claimed.isEmpty { try await recorder.record(claimed.map { $0.outcome() }) }
        delivered += claimed.count
        if delivered >= rounds - 3 { _ = try await recorder.cut() }
        return delivered == rounds
      }
      try await publishing
      #expect(order.values.allSatisfy { $0 == $0.sorted() })
      #expect(try await cutter.client.int("SELECT count(*) FROM outbox.delivery") == 0)
    }
  }

  @Test func endpointThatIsNoLongerOrderedSendsAllAtOnce() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("ordered => true")
      try await worker.client.publish(3, key: "k")
      _ = try await worker.cut()
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed) })
      let first = try await worker.claim([endpoint])
      #expect(first.count == 1)
      try await worker.client.execute("UPDATE outbox.endpoint SET ordered = false")
      // From the floor that the last claim left: what becomes ready later is due later.
      #expect(try await worker.claim([endpoint], floors: [first[0].dueAt.adding(.microseconds(1))]).count == 2)
      try await worker.record(first.map { $0.outcome() })
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery") == 2)
    }
  }

  @Test func redrivenDeadLetterQueuesBehindItsKey() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("ordered => true")
      try await worker.client.publish(2, key: "k")
      _ = try await worker.cut()
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed, reason: "exhausted") })
      try await worker.client.execute("SELECT outbox.redrive(id) FROM outbox.dead_letter")
      for number in [2, 1] {
        let claimed = try await worker.claim([endpoint])
        #expect(claimed.map(\.event.number) == [number])
        try await worker.record(claimed.map { $0.outcome() })
      }
    }
  }
}
