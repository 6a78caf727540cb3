import Postgres

@testable import Dispatcher
@testable import OutboxStore

/// A loop's connection to the model, and the network in between: a request may get lost, its reply, or both be late, and
/// the server carries out what arrives whether or not anybody still waits for the reply.
final class ModelSession: DispatchStore {
  private unowned let host: Host
  private let world: World
  private let waitsForDisk: Bool
  private var isConnected = false
  private var epoch = -1
  private let waiter: Waiter
  /// Grows with each connection: what arrives for an older one is of no interest.
  private var connection = 0
  private var isWaiting = false

  init(_ host: Host, waitsForDisk: Bool) {
    self.host = host
    self.world = host.world
    self.waitsForDisk = waitsForDisk
    waiter = Waiter(world.scheduler)
  }

  func breakConnection() {
    isConnected = false
    connection += 1
    if isWaiting { waiter.signal() }
  }

  private var isReachable: Bool {
    host.isAlive && world.database.isUp && world.scheduler.now >= host.cutOffUntil
  }

  /// This session with a usable connection.
  func connected() throws(PostgresError) -> ModelSession {
    if isConnected { return self }
    guard host.isAlive else { throw .gone }
    world.scheduler.sleep(world.chance.between(500, 3000))
    if host.isAlive, !isReachable {
      world.scheduler.sleep(world.chance.pick([1000, 200_000]))
      host.thaw()
      throw .gone
    }
    host.thaw()
    guard isReachable else { throw .gone }
    (isConnected, epoch) = (true, world.database.epoch)
    connection += 1
    return self
  }

  /// Sends a call to the server and waits for the reply.
  private func call<Value>(_ body: @escaping (ModelDatabase, ModelDatabase.Transaction) throws(PostgresError) -> Value)
    throws(PostgresError) -> Value
  {
    guard isConnected, host.isAlive else { throw .gone }
    let (scheduler, chance, scenario, database) = (world.scheduler, world.chance, world.scenario, world.database)
    var (toServer, toUs) = (chance.between(100, 800), chance.between(100, 800))
    var (arrives, returns) = (true, true)
    if world.isTroubled {
      if chance.permille(scenario.slowCalls) { toServer += chance.below(chance.pick([100_000, 2_000_000])) }
      if chance.permille(scenario.slowCalls) { toUs += chance.below(chance.pick([100_000, 2_000_000])) }
      if chance.permille(scenario.lostRequests) { arrives = false }
      if chance.permille(scenario.lostReplies) { returns = false }
    }
    let mine = connection
    let serverEpoch = epoch
    var result: Result<Value, PostgresError>?
    let giveUp = { [unowned self] in if connection == mine { breakConnection() } }
    let replied = { [unowned self] (answer: Result<Value, PostgresError>) in
      guard returns else { return giveUp() }
      scheduler.after(toUs) { [unowned self] in
        guard connection == mine else { return }
        result = answer
        waiter.signal()
      }
    }
    if !arrives {
      scheduler.after(toServer, giveUp)
    } else {
      if world.isTroubled, chance.permille(scenario.lateCalls) {
        // We see the connection break while the request is still on its way, in a buffer or before a stopped process.
        scheduler.after(chance.below(toServer), giveUp)
        toServer += chance.below(chance.pick([5000, 500_000, 3_000_000]))
      }
      let waitsForDisk = waitsForDisk
      scheduler.spawn(after: toServer) {
        guard database.epoch == serverEpoch else { return }
        do throws(PostgresError) {
          let value = try database.transaction(waitsForDisk: waitsForDisk) { transaction throws(PostgresError) in
            try body(database, transaction)
          }
          replied(.success(value))
        } catch {
          replied(.failure(error))
        }
      }
    }
    isWaiting = true
    _ = waiter.wait(upTo: nil)
    isWaiting = false
    host.thaw()
    // A reply that came just before the connection broke, or we were killed, is not read any more.
    guard let result, host.isAlive, connection == mine else { throw .gone }
    return try result.get()
  }

  // MARK: - Calls

  func snapshot() throws(PostgresError) -> String { try call { database, _ in database.snapshot.text } }

  /// The real server sleeps, and then looks; here each look also crosses the network.
  func watch(_ seen: String?, every pause: Duration, upTo longest: Duration) throws(PostgresError) -> String {
    for _ in 0..<max(1, Int(longest / pause)) {
      world.scheduler.sleep(Int(pause.wholeMicroseconds))
      host.thaw()
      let current = try snapshot()
      if current != seen { return current }
    }
    return try snapshot()
  }

  func waiting() throws(PostgresError) -> [(endpoint: Int64, dueIn: Duration)] {
    try call { database, _ in database.waiting() }.map { (Int64($0.endpoint), .milliseconds($0.dueIn / 1000)) }
  }

  func changed(since known: [(id: Int64, version: Int64)]) throws(PostgresError) -> [Int64] {
    try call { database, _ in
      known.filter { Int64(database.tables.endpoint(Int($0.id))?.version ?? -1) != $0.version }.map(\.id)
    }
  }

  func endpoints(_ ids: [Int64]) throws(PostgresError) -> [EndpointSettings] {
    try call { database, _ in
      ids.compactMap { database.tables.endpoint(Int($0)).map(EndpointSettings.init) }
    }
  }

  func cut(
    dispatcher: Int64,
    events: Int,
    direct: Int,
    perEndpoint: Int,
    bytes: Int,
    busy: [Int64],
    slots: [Int],
    resyncs: Int?
  )
    throws(PostgresError) -> Cut?
  {
    let cut = try call { database, transaction throws(PostgresError) in
      try database.cut(
        dispatcher: Int(dispatcher),
        events: events,
        direct: direct,
        perEndpoint: perEndpoint,
        busy: busy.map { Int($0) },
        slots: slots,
        resyncs: resyncs,
        transaction
      ).map { ($0, $0.direct.map { row in row.endpoints.map { Int64(database.tables.endpoint($0)!.version) } }) }
    }
    guard let (result, versions) = cut else { return nil }
    return Cut(
      batch: result.batch.map { Int64($0) },
      events: result.events,
      parked: result.parked,
      claimable: result.claimable.map { Int64($0) },
      more: result.more,
      direct: zip(result.direct, versions).map { row, versions in
        Cut.Direct(event: OutboxEvent(row.event), endpoints: row.endpoints.map { Int64($0) }, versions: versions)
      }
    )
  }

  func claim(dispatcher: Int64, endpoints: [Int64], slots: [Int], floors: [Timestamp?], resyncs: Int?)
    throws(PostgresError) -> Claim
  {
    world.checker.trace("\(dispatcher) asks to claim of \(endpoints), at most \(slots)")
    var claim = Claim()
    claim.deliveries = try call { database, transaction throws(PostgresError) in
      let rows = try database.claim(
        dispatcher: Int(dispatcher),
        endpoints: endpoints.map { Int($0) },
        slots: slots,
        floors: floors.map { $0.map { Int($0.microsecondsSince2000) } },
        resyncs: resyncs,
        transaction
      )
      return rows.map { row in
        let event = database.tables.events.first { $0.id == row.pair.event }!
        return Claimed(
          event: OutboxEvent(event),
          endpoint: Int64(row.pair.endpoint),
          version: Int64(database.tables.endpoint(row.pair.endpoint)!.version),
          attempts: row.attempts,
          dueAt: Timestamp(microsecondsSince2000: Int64(row.due)),
          age: .microseconds(database.clock - max(row.created, event.notBefore ?? .min))
        )
      }
    }
    return claim
  }

  func record(dispatcher: Int64, _ outcomes: [Outcome], finishedBatches: [Int64], again: Bool, resyncs: Int?)
    throws(PostgresError)
    -> [EndpointChange]
  {
    let pairs = outcomes.map { World.pair($0.delivery) }
    return try call { database, transaction throws(PostgresError) in
      try database.record(
        dispatcher: Int(dispatcher),
        outcomes,
        pairs: pairs,
        finished: finishedBatches.map { Int($0) },
        again: again,
        resyncs: resyncs,
        transaction
      )
    }
    .map { EndpointChange(endpoint: Int64($0.endpoint), circuit: $0.circuit.rawValue, state: $0.state.rawValue) }
  }

  func resync(dispatcher: Int64, held: [DeliveryKey], batches: [Int64?]?, number: Int?) throws(PostgresError) -> Int64 {
    var kept = ModelDatabase.Kept()
    for (key, batch) in zip(held, batches!) { kept.batches[World.pair(key), default: []].append(batch.map { Int($0) }) }
    let told = kept
    return Int64(
      try call { database, transaction throws(PostgresError) in
        try database.resync(dispatcher: Int(dispatcher), kept: told, number: number, transaction)
      }
    )
  }

  func register(name: String, host: String, pid: Int32, version: String, lease: Duration) throws(PostgresError) -> Int64
  {
    Int64(
      try call { database, transaction throws(PostgresError) in
        try database.register(lease: lease.wholeMicroseconds, transaction)
      }
    )
  }

  func heartbeat(dispatcher: Int64, lease: Duration) throws(PostgresError) -> Bool {
    try call { database, transaction throws(PostgresError) in
      try database.heartbeat(dispatcher: Int(dispatcher), lease: lease.wholeMicroseconds, transaction)
    }
  }

  func serverTime() throws(PostgresError) -> Double { try call { database, _ in Double(database.clock) / 1e6 } }

  func recover(caller: Int64?, settle: Duration) throws(PostgresError) -> [OutboxStore.Recovered] {
    try call { database, transaction throws(PostgresError) in
      try database.recover(caller: caller.map { Int($0) }, settle: settle.wholeMicroseconds, transaction)
    }
    .map { OutboxStore.Recovered(dispatcher: Int64($0.id), name: "", deliveries: Int64($0.deliveries)) }
  }

  func release(dispatcher: Int) throws(PostgresError) -> Int {
    try call { database, transaction throws(PostgresError) in
      try database.release(dispatcher: dispatcher, transaction)
    }
  }

  func transformed(_ delivery: DeliveryKey) throws(PostgresError) -> [UInt8] {
    preconditionFailure("no transforms here")
  }
}

extension OutboxEvent {
  init(_ row: EventRow) {
    self.init(
      id: World.uuid(row.id),
      type: "t\(row.type)",
      key: row.key.map { "k\($0)" },
      createdAt: Timestamp(microsecondsSince2000: 0),
      payload: Array("{}".utf8)
    )
  }
}

extension EndpointSettings {
  init(_ row: EndpointRow) {
    self.init(
      id: Int64(row.id),
      version: Int64(row.version),
      url: "https://example.com/\(row.id)",
      state: row.state.rawValue,
      ordered: row.ordered,
      format: "raw",
      transform: nil,
      headers: Array("{}".utf8),
      timeout: .microseconds(row.timeout),
      firstDelay: .microseconds(row.firstDelay),
      multiplier: 2,
      longestDelay: .microseconds(row.longestDelay),
      jitter: 0.1,
      maxAttempts: row.maxAttempts,
      maxAge: .microseconds(row.maxAge),
      maxInFlight: row.maxInFlight,
      retryDelays: nil,
      rateLimit: nil,
      secrets: [Secret(text: Sensitive("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), expiresAt: nil)],
      credentials: []
    )
  }
}
