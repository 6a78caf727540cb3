import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Rig

/// What happens between the first event and the last delivery.
struct Stage: Sendable {
  let screen: Screen
  let database: Session
  let server: EmbeddedPostgres
  let file: EventFile
  let options: Demonstration.Options
  let endpoints: Endpoints

  static let clientCount = 4
  static let publishingTime = Duration.seconds(18)
  static let settlingLimit = Duration.seconds(70)

  func run(logs: URL, keeper: ChildKeeper) async throws -> Bool {
    introduceEndpoints()
    let dispatchers = try Dispatchers(database: server.connectionString, logs: logs, keeper: keeper)
    do {
      try await waitForDispatchers(dispatchers)
      screen.tell(
        "two dispatchers are up: processes \(dispatchers.first.child.pid) and \(dispatchers.second.child.pid); "
          + "should one die, the other takes over in \(Dispatchers.leaseSeconds) s"
      )
      let shop = ShopRecord()
      let killedAt = try await play(shop, dispatchers)
      let findings = try await database.withConnection { try OutboxStore($0).reconcile() }
      try await dispatchers.stopSecond()
      screen.clearStatus()
      return try await report(shop.snapshot, killedAt: killedAt, findings)
    } catch {
      await dispatchers.kill()
      throw error
    }
  }

  private func introduceEndpoints() {
    screen.tell("five endpoints, each with a signing secret of its own:")
    for endpoint in endpoints.all {
      let only = endpoint.types == "*" ? "" : " (subscribed to \(endpoint.types))"
      screen.say("           \(endpoint.id)  \(endpoint.target.name.rightPadded(10))\(endpoint.target.story)\(only)")
    }
  }

  private func waitForDispatchers(_ dispatchers: Dispatchers) async throws {
    try await poll(for: .seconds(30), "the dispatchers did not register") {
      try dispatchers.first.requireRunning()
      try dispatchers.second.requireRunning()
      return try await database.withConnection { try OutboxRecord($0).dispatchers().count } == 2
    }
  }

  /// Publishes everything, kills a dispatcher in the middle, and returns when the deliveries have come to an end.
  private func play(_ shop: ShopRecord, _ dispatchers: Dispatchers) async throws -> ContinuousClock.Instant {
    screen.tell(
      "\(Self.clientCount) clients of a shop write orders and events in the same transactions, and roll some back"
    )
    return try await withThrowingTaskGroup(of: ContinuousClock.Instant?.self) { group in
      for var client in clients(shop) {
        group.addTask {
          try await client.run(over: Self.publishingTime)
          return nil
        }
      }
      group.addTask { try await killAndTakeOver(shop, dispatchers) }
      group.addTask {
        try await watch(shop, dispatchers)
        return nil
      }
      var killedAt: ContinuousClock.Instant?
      while let instant = try await group.next() { killedAt = instant ?? killedAt }
      guard let killedAt else { preconditionFailure("the director returned no instant") }
      return killedAt
    }
  }

  private func clients(_ shop: ShopRecord) -> [ShopClient] {
    var plans = [[ShopClient.Planned]](repeating: [], count: Self.clientCount)
    for index in 0..<options.count {
      let event = file.events[index % file.events.count]
      let round = index / file.events.count
      let key = event.key.map { round == 0 ? $0 : "\($0)/\(round + 1)" }
      // All events of a key from one client: the order of their commits is then known.
      let number = key.map { $0.utf8.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF } } ?? index
      plans[number % Self.clientCount].append((event, key))
    }
    return plans.enumerated().map { number, plan in
      ShopClient(
        session: Session(
          ConnectionConfiguration(connectionString: server.connectionString, applicationName: "shop-\(number)"),
          name: "shop-\(number)"
        ),
        plan: plan,
        source: file.name,
        record: shop,
        random: SeededGenerator(seed: options.seed, stream: 100 + number)
      )
    }
  }

  private func killAndTakeOver(_ shop: ShopRecord, _ dispatchers: Dispatchers) async throws -> ContinuousClock.Instant {
    try await poll(for: .seconds(600), "the shop did not get half of its events published") {
      try dispatchers.first.requireRunning()
      return shop.publishedCount >= options.count / 2
    }
    // In the middle of something, if at all possible.
    var inFlight = 0
    _ = try? await poll(for: .seconds(3), "") {
      inFlight = try await database.withConnection {
        try OutboxRecord($0).inFlight(dispatcher: dispatchers.first.name, endpoint: endpoints.id(.billing))
      }
      return inFlight >= 3
    }
    let killedAt = ContinuousClock.now
    try await dispatchers.killFirst()
    screen.tell(
      "kill -9 \(dispatchers.first.child.pid): the first dispatcher dies with \(inFlight) deliveries to billing in flight"
    )
    try await poll(for: .seconds(30), "the second dispatcher did not take over") {
      try await database.withConnection { try !OutboxRecord($0).isRegistered(dispatchers.first.name) }
    }
    screen.tell("the second dispatcher has taken over, \((ContinuousClock.now - killedAt).inSeconds) after the kill")
    endpoints.all[Target.analytics.rawValue].inbox.stopHanging()
    screen.tell("analytics answers again; it is noticed at the next probe")
    return killedAt
  }

  /// Shows how far things are until everything has come to an end.
  private func watch(_ shop: ShopRecord, _ dispatchers: Dispatchers) async throws {
    let observer = Session(ConnectionConfiguration(connectionString: server.connectionString), name: "observer")
    var publishedAt: ContinuousClock.Instant?
    while true {
      let published = shop.publishedCount
      let progress = try await observer.withConnection { try OutboxRecord($0).progress(published: published) }
      screen.status(
        "published \(published) of \(options.count), delivered \(progress.delivered), "
          + "waiting \(progress.waiting), dead \(progress.dead)"
      )
      try dispatchers.second.requireRunning()
      if published == options.count {
        if progress.isSettled { return }
        let since = publishedAt ?? .now
        publishedAt = since
        // The accounts are compared all the same, and say what is missing.
        if .now - since > Self.settlingLimit { return }
      }
      try await Task.sleep(for: .milliseconds(200))
    }
  }

  private func poll(for limit: Duration, _ failure: String, until condition: () async throws -> Bool) async throws {
    let deadline = ContinuousClock.now + limit
    while try await !condition() {
      guard ContinuousClock.now < deadline else { throw DemoError("\(failure) within \(limit)") }
      try await Task.sleep(for: .milliseconds(5))
    }
  }
}
