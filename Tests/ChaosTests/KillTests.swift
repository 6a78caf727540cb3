import Foundation
import Receiver
import TestSupport
import Testing

@Suite(.serialized) struct KillTests {
  @Test func aDispatcherKilledTwentyTimesLosesNothing() async throws {
    let seed = UInt64.random(in: 0..<1_000_000)
    print("seed \(seed)")
    var random = SplitMix64(seed: seed)
    let database = try await TestDatabase.make()
    // One answer in twenty is an error; some take a while, so that kills find requests in flight.
    let listener = try await Listener { arrival, count in
      let n = arrival.n ?? 0
      return n % 20 == 0 && count == 0
        ? Reply(status: 500) : Reply(status: 200, delay: .milliseconds(n % 7 == 0 ? 50 : 0))
    }
    _ = try await database.addEndpoint(
      listener.url(),
      options: "first_delay => '50 ms', failure_threshold => 1000000"
    )
    try await database.execute("SELECT outbox.stamp_subscriptions()")
    let publisher = Publisher(database)
    let publishing = Task { try await publisher.run() }
    var kills: [ContinuousClock.Instant] = []
    for _ in 0..<20 {
      let victim = try MartletProcess.dispatcher(database, lease: 10)
      let arrived = listener.arrivals.count
      // Not before it has begun, then at a moment of chance: the test's subject, not a synchronisation.
      try await eventually("something arrives") { listener.arrivals.count > arrived }
      try await Task.sleep(for: .milliseconds(Int.random(in: 0..<300, using: &random)))
      victim.signal(SIGKILL)
      kills.append(.now)
      _ = await victim.waitForExit()
    }
    publisher.stop()
    try await publishing.value
    let last = try MartletProcess.dispatcher(database, lease: 10)
    try await eventually("all is delivered", within: .seconds(120)) { try await database.isSettled() }
    last.signal(SIGTERM)
    #expect(await last.waitForExit() == 0)

    let received = Set(listener.accepted().compactMap(\.n))
    #expect(received.isSuperset(of: publisher.committed), "lost: \(publisher.committed.subtracting(received))")
    #expect(received.isDisjoint(with: publisher.rolledBack), "phantoms: \(received.intersection(publisher.rolledBack))")
    #expect(try await database.missing() == 0)
    var duplicates = 0
    for (n, arrivals) in Dictionary(grouping: listener.accepted(), by: \.n) where arrivals.count > 1 {
      duplicates += arrivals.count - 1
      #expect(Set(arrivals.map(\.id)).count == 1, "payload \(n ?? -1) came under several ids")
      for earlier in arrivals.dropLast() {
        // It was answered, and its dispatcher was killed before it could say so; a receiver short of processor time reads
        // the request even after the kill.
        let isExplained = kills.contains { $0 - earlier.at > .seconds(-5) && $0 - earlier.at < .seconds(10) }
        #expect(isExplained, "payload \(n ?? -1) came again, and no kill explains it")
      }
    }
    print("committed \(publisher.committed.count), rolled back \(publisher.rolledBack.count), duplicates \(duplicates)")
  }

  /// Three dispatchers at a time, one of them killed again and again, heads that fail, heads that die and hold their key.
  @Test func orderSurvivesDispatchersThatAreKilled() async throws {
    let (keys, events) = (8, 480)
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, count in
      let n = arrival.n ?? 0
      return n % 13 == 0 && count < 2
        ? Reply(status: 500) : Reply(status: 200, delay: .milliseconds(n % 7 == 0 ? 30 : 0))
    }
    let endpoint = try await database.addEndpoint(
      listener.url(),
      options: """
        ordered => true, on_dead_letter => 'hold', retry_delays => '{30 ms}', failure_threshold => 1000000, \
        failure_rate => NULL
        """
    )
    try await database.execute("SELECT outbox.stamp_subscriptions()")
    let survivors = try (0..<2).map { _ in try MartletProcess.dispatcher(database) }
    for round in 0..<6 {
      let victim = try MartletProcess.dispatcher(database)
      try await eventually("it is there") { try await database.int("SELECT count(*) FROM outbox.dispatcher") >= 3 }
      try await database.publish(events / 6, first: round * (events / 6), key: "'k' || i % \(keys)")
      try await eventually("it is at work") {
        try await database.int("SELECT count(*) FROM outbox.in_flight") > 0 || listener.arrivals.count > 0
      }
      victim.signal(SIGKILL)
      _ = await victim.waitForExit()
    }
    try await eventually("all is delivered", within: .seconds(120)) {
      _ = try await database.int("outbox.redrive_where(\(endpoint))")
      return try await database.isSettled() && Set(listener.accepted().compactMap(\.n)).count == events
    }
    for process in survivors {
      process.signal(SIGTERM)
      #expect(await process.waitForExit() == 0)
    }
    // A repeat after a kill may come late; what counts is when each came first.
    var order: [Int: [Int]] = [:]
    var seen: Set<Int> = []
    for n in listener.accepted().compactMap(\.n) where seen.insert(n).inserted {
      order[n % keys, default: []].append(n)
    }
    for (key, numbers) in order { #expect(numbers == numbers.sorted(), "key \(key)") }
    #expect(try await database.missing() == 0)
  }

  @Test func aReceiverThatDiesInTheMiddleGetsEverythingWhenItIsBack() async throws {
    let database = try await TestDatabase.make()
    let first = try await Listener()
    _ = try await database.addEndpoint(
      first.url(),
      options: "first_delay => '50 ms', multiplier => 1, failure_threshold => 1000000"
    )
    let dispatcher = try MartletProcess.dispatcher(database)
    try await database.publish(2000)
    try await eventually("some have arrived") { first.arrivals.count > 100 }
    await first.stop()
    try await database.publish(500, first: 2001)
    try await eventually("some have failed") {
      try await database.int("SELECT count(*) FROM outbox.delivery WHERE attempts > 0") > 0
    }
    let second = try await Listener(port: first.port)
    try await eventually("all is delivered", within: .seconds(120)) { try await database.isSettled() }
    dispatcher.signal(SIGTERM)
    #expect(await dispatcher.waitForExit() == 0)
    #expect(Set((first.accepted() + second.accepted()).compactMap(\.n)) == Set(1...2500))
  }

  @Test func aZombieThatWakesAfterItsLeaseIsFenced() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, _ in Reply(status: 200, delay: .milliseconds(300)) }
    _ = try await database.addEndpoint(listener.url())
    let zombie = try MartletProcess.dispatcher(database)
    try await database.publish(300)
    try await eventually("it is at work") { listener.arrivals.count > 10 }
    zombie.signal(SIGSTOP)
    let heir = try MartletProcess.dispatcher(database)
    try await eventually("the other has taken over") {
      try await database.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'unknown'") > 0
    }
    zombie.signal(SIGCONT)
    try await eventually("all is delivered") { try await database.isSettled() }
    for process in [zombie, heir] {
      process.signal(SIGTERM)
      #expect(await process.waitForExit() == 0)
    }
    #expect(Set(listener.accepted().compactMap(\.n)) == Set(1...300))
    #expect(try await database.missing() == 0)
    // Each delivery was recorded once: the zombie's own outcomes were refused.
    #expect(try await database.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'delivered'") == 300)
  }
}

/// An application: transactions of a few events, one in five rolled back, by two clients, until it is stopped.
private final class Publisher: Sendable {
  private let database: TestDatabase
  private let state = Ledger()

  init(_ database: TestDatabase) { self.database = database }

  var committed: Set<Int> { state.committed }
  var rolledBack: Set<Int> { state.rolledBack }
  func stop() { state.stop() }

  func run() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for client in 0..<2 {
        group.addTask { [database, state] in
          let session = try await database.newSession()
          var n = client
          while !state.isStopped {
            let mine = (0..<3).map { _ in
              n += 2
              return n
            }
            let rollsBack = (n / 2) % 5 == 0
            try await session.withConnection { connection in
              try connection.execute("BEGIN")
              for n in mine {
                try connection.execute(
                  "INSERT INTO outbox.event (type, payload) VALUES ('order.created', '{\"n\": \(n)}')"
                )
              }
              try connection.execute(rollsBack ? "ROLLBACK" : "COMMIT")
            }
            state.note(mine, rolledBack: rollsBack)
            try await Task.sleep(for: .milliseconds(5))  // the pace of this application
          }
        }
      }
      try await group.waitForAll()
    }
  }
}
