import OutboxStore
import Postgres

/// sql/0009_claim.sql, sql/0011_record.sql
extension ModelDatabase {
  /// Endpoints with something waiting, and microseconds until the first is due.
  func waiting() -> [(endpoint: Int, dueIn: Int)] {
    let now = clock
    var first: [Int: Int] = [:]
    for delivery in tables.deliveries.values where delivery.ready && delivery.dispatcher == nil {
      first[delivery.pair.endpoint] = min(first[delivery.pair.endpoint] ?? .max, delivery.due)
    }
    return tables.endpoints.compactMap { endpoint in
      guard endpoint.state == .enabled, let due = first[endpoint.id] else { return nil }
      let health = tables.health[endpoint.id]
      let probe = health.flatMap { $0.state == .closed ? nil : $0.probeAt } ?? .min
      return (endpoint.id, max(max(due, probe) - now, 0))
    }
  }

  /// - Parameter choose: of those that are due the slots' worth to take; by default the longest due.
  func claim(
    dispatcher: Int,
    endpoints: [Int],
    slots: [Int],
    floors: [Int?],
    resyncs: Int? = nil,
    _ transaction: Transaction,
    choose: ([Delivery], Int) -> [Delivery] = { Array($0.prefix($1)) }
  ) throws(PostgresError) -> [Delivery] {
    try holdLease(dispatcher, resyncs, transaction)
    if mutation != .asynchronousOrderedClaim, endpoints.contains(where: { tables.endpoint($0)?.ordered == true }) {
      transaction.waitsForDisk = true
    }
    try between(transaction)
    let now = clock
    var probed: Set<Int> = []
    for id in endpoints.sorted() {
      guard let endpoint = tables.endpoint(id), endpoint.state == .enabled, var health = tables.health[id],
        health.state != .closed, let probeAt = health.probeAt, probeAt <= now,
        tables.deliveries.values.contains(where: { $0.pair.endpoint == id && isClaimable($0) && $0.due <= now })
      else { continue }
      health.state = .halfOpen
      health.probeAt = now + endpoint.timeout + 30_000_000
      tables.health[id] = health
      probed.insert(id)
    }
    var claimed: [Delivery] = []
    for (index, id) in endpoints.enumerated() {
      guard tables.endpoint(id)?.state == .enabled,
        (tables.health[id]?.state ?? .closed) == .closed || probed.contains(id)
      else { continue }
      let floor = probed.contains(id) ? Int.min : floors[index] ?? Int.min
      let due = tables.waiting(id) { isClaimable($0) && $0.due >= floor && $0.due <= now }
      claimed += choose(due.sorted { ($0.due, $0.seq) < ($1.due, $1.seq) }, probed.contains(id) ? 1 : slots[index])
    }
    for delivery in claimed {
      tables.deliveries[delivery.pair]!.dispatcher = dispatcher
      touched.append(delivery.pair)
    }
    if !claimed.isEmpty || !probed.isEmpty { commit(.claimed(dispatcher, claimed.map(\.pair)), transaction) }
    return claimed.sorted { ($0.due, $0.seq) < ($1.due, $1.seq) }
  }

  private func isClaimable(_ delivery: Delivery) -> Bool {
    delivery.ready && (delivery.dispatcher == nil || mutation == .claimTheClaimed)
  }

  /// - Parameter outcomes: with the pair of each.
  func record(
    dispatcher: Int,
    _ outcomes: [Outcome],
    pairs: [Pair],
    finished: [Int],
    again: Bool,
    resyncs: Int? = nil,
    _ transaction: Transaction
  ) throws(PostgresError) -> [(endpoint: Int, circuit: Health.State, state: EndpointRow.State)] {
    try holdLease(dispatcher, resyncs, transaction)
    try lock(recorderLock(dispatcher), exclusive: true, transaction)
    if again, mutation != .recordTwice, let first = outcomes.first, isRecorded(first, pairs[0], dispatcher) {
      return []
    }
    var ordered: Set<Int> = []
    for (outcome, pair) in zip(outcomes, pairs)
    where outcome.batch == nil && tables.endpoint(pair.endpoint)?.ordered == true {
      ordered.insert(pair.endpoint)
    }
    for endpoint in ordered.sorted() { try lock(keyLock(endpoint), exclusive: true, transaction) }
    try between(transaction)

    let now = clock
    for (outcome, pair) in zip(outcomes, pairs) {
      note(
        pair,
        Attempt(
          batch: outcome.batch.map { Int($0) },
          dispatcher: dispatcher,
          kind: .init(rawValue: outcome.kind.rawValue)!,
          number: outcome.attempt,
          duration: Int(outcome.duration / .milliseconds(1))
        )
      )
      touched.append(pair)
    }
    reschedule(outcomes, pairs, dispatcher, now)
    for (outcome, pair) in zip(outcomes, pairs) {
      guard let reason = outcome.reason else { continue }
      if tables.dead[pair] == nil, mutation != .buryNothing {
        tables.dead[pair] = DeadLetter(attempts: outcome.attempt, reason: reason)
      }
      if reason == "gone", tables.endpoints[pair.endpoint - 1].state != .disabled {
        tables.endpoints[pair.endpoint - 1].state = .disabled
        tables.endpoints[pair.endpoint - 1].version += 1
      }
    }
    finishClaimed(outcomes, pairs, dispatcher, now)
    for (outcome, pair) in zip(outcomes, pairs) where outcome.kind == .returned {
      if tables.health[pair.endpoint]?.state == .halfOpen { tables.health[pair.endpoint]!.probeAt = now }
    }
    let ends = mutation == .closeBatchEarly ? outcomes.compactMap { $0.batch.map { Int($0) } } : finished
    tables.batches.removeAll { batch in
      guard batch.dispatcher == dispatcher, ends.contains(batch.id) else { return false }
      touched += batch.pairs
      return true
    }
    let changes = noteHealth(outcomes, pairs, now)
    commit(.recorded(dispatcher, outcomes), transaction)
    return changes
  }

  private func isRecorded(_ first: Outcome, _ pair: Pair, _ dispatcher: Int) -> Bool {
    let same = Attempt(
      batch: first.batch.map { Int($0) },
      dispatcher: dispatcher,
      kind: .init(rawValue: first.kind.rawValue)!,
      number: first.attempt,
      duration: Int(first.duration / .milliseconds(1))
    )
    guard tables.attempts[pair]?.contains(same) == true else { return false }
    return !(first.batch == nil && tables.deliveries[pair]?.dispatcher == dispatcher)
  }

  private func reschedule(_ outcomes: [Outcome], _ pairs: [Pair], _ dispatcher: Int, _ now: Int) {
    var latest: [Pair: Int] = [:]
    for (index, pair) in pairs.enumerated() where outcomes[index].kind != .delivered && outcomes[index].reason == nil {
      if let other = latest[pair], outcomes[other].attempt >= outcomes[index].attempt { continue }
      latest[pair] = index
    }
    for (pair, index) in latest.sorted(by: { $0.key < $1.key }) {
      let outcome = outcomes[index]
      let due = now + Int((outcome.retryIn ?? .zero) / .microseconds(1))
      if var row = tables.deliveries[pair] {
        guard row.dispatcher == dispatcher else { continue }
        (row.attempts, row.due, row.dispatcher) = (outcome.attempt, due, nil)
        tables.deliveries[pair] = row
      } else if mutation != .forgetFailedDirect || outcome.batch == nil {
        tables.deliveries[pair] = Delivery(
          pair: pair,
          seq: tables.nextSeq,
          key: nil,
          attempts: outcome.attempt,
          due: due,
          created: clock
        )
        tables.nextSeq += 1
      }
    }
  }

  private func finishClaimed(_ outcomes: [Outcome], _ pairs: [Pair], _ dispatcher: Int, _ now: Int) {
    for (outcome, pair) in zip(outcomes, pairs) where outcome.batch == nil {
      guard outcome.kind == .delivered || outcome.reason != nil, let row = tables.deliveries[pair],
        row.dispatcher == dispatcher
      else { continue }
      tables.deliveries[pair] = nil
      guard let key = row.key, mutation != .promoteNobody else { continue }
      let later = tables.waiting(pair.endpoint) { $0.key == key && $0.seq > row.seq }
      for next in mutation == .promoteTwoHeads ? later.prefix(2) : later.prefix(1) {
        tables.deliveries[next.pair]!.ready = true
        tables.deliveries[next.pair]!.due = max(next.due, now)
        touched.append(next.pair)
      }
    }
  }

  /// `outbox.note_health`
  private func noteHealth(_ outcomes: [Outcome], _ pairs: [Pair], _ now: Int)
    -> [(endpoint: Int, circuit: Health.State, state: EndpointRow.State)]
  {
    var seen: [Int] = []
    for pair in pairs where !seen.contains(pair.endpoint) { seen.append(pair.endpoint) }
    var changes: [(endpoint: Int, circuit: Health.State, state: EndpointRow.State)] = []
    for endpoint in seen.sorted() {
      var (failed, run, succeeded, any) = (0, 0, false, false)
      for (outcome, pair) in zip(outcomes, pairs) where pair.endpoint == endpoint {
        if outcome.kind == .failed { (failed, run, any) = (failed + 1, run + 1, true) }
        if outcome.kind == .delivered { (run, succeeded, any) = (0, true, true) }
      }
      guard any, let settings = tables.endpoint(endpoint) else { continue }
      guard failed > 0 || tables.health[endpoint] != nil else { continue }
      var health = tables.health[endpoint] ?? Health()
      guard failed > 0 || health.failures > 0 || health.state != .closed else { continue }
      if !succeeded { run += health.failures }
      let was = health.state
      let state: Health.State =
        succeeded && run < settings.failureThreshold
        ? .closed : was != .closed || run >= settings.failureThreshold ? .open : .closed
      let openFor = health.openedAt.map { now - $0 } ?? 0
      if state == .open {
        if was != .open { health.probeAt = now + min(max(openFor, 5_000_000), 300_000_000) }
        health.openedAt = health.openedAt ?? now
      } else {
        (health.openedAt, health.probeAt) = (nil, nil)
      }
      (health.state, health.failures) = (state, run)
      tables.health[endpoint] = health
      if state != was || settings.state != .enabled { changes.append((endpoint, state, settings.state)) }
    }
    return changes
  }

  private func note(_ pair: Pair, _ attempt: Attempt) { tables.attempts[pair, default: []].append(attempt) }

  // MARK: - Taking away and giving back

  /// What a dispatcher says it holds, and how: by a batch, or by a claim (nil).
  struct Kept {
    var batches: [Pair: [Int?]] = [:]
    /// Of a caller that does not say: any will do.
    var isAnyHow = false
    func contains(_ pair: Pair, _ batch: Int?) -> Bool {
      guard let held = batches[pair] else { return false }
      return isAnyHow || held.contains(batch)
    }
  }

  /// Returns how many pairs became available.
  private func giveBack(_ dispatcher: Int, kept: Kept) -> (count: Int, pairs: [Pair]) {
    let now = clock
    var count = 0
    var available: [Pair] = []
    for batch in tables.batches where batch.dispatcher == dispatcher && mutation != .forgetBatchesOfTheLost {
      for pair in batch.pairs where !kept.contains(pair, batch.id) && !tables.hasAttempt(pair, batch: batch.id) {
        note(pair, Attempt(batch: batch.id, dispatcher: dispatcher, kind: .unknown, number: 0, duration: nil))
        touched.append(pair)
        available.append(pair)
        guard tables.deliveries[pair] == nil else { continue }
        tables.deliveries[pair] = Delivery(pair: pair, seq: tables.nextSeq, key: nil, due: now, created: now)
        tables.nextSeq += 1
        count += 1
      }
    }
    var left: [Batch] = []
    for batch in tables.batches {
      if batch.dispatcher == dispatcher,
        !batch.pairs.contains(where: {
          kept.contains($0, batch.id) && !tables.hasAttempt($0, batch: batch.id)
        })
      {
        touched += batch.pairs
      } else {
        left.append(batch)
      }
    }
    tables.batches = left
    for row in tables.deliveries.values where row.dispatcher == dispatcher && !kept.contains(row.pair, nil) {
      if mutation == .forgetClaimsOfTheLost { continue }
      tables.deliveries[row.pair]!.dispatcher = nil
      tables.deliveries[row.pair]!.due = now
      note(row.pair, Attempt(batch: nil, dispatcher: dispatcher, kind: .unknown, number: row.attempts, duration: nil))
      touched.append(row.pair)
      available.append(row.pair)
      count += 1
    }
    return (count, available.sorted())
  }

  /// - Parameter caller: takes over from all others.
  func recover(caller: Int?, settle: Int, _ transaction: Transaction) throws(PostgresError) -> [(
    id: Int, deliveries: Int
  )] {
    if let caller, tables.lease(caller) != nil, tables.witness[caller] == nil, mutation != .idlersNeverResync {
      throw .raised(OutboxState.mustResync)
    }
    var recovered: [(id: Int, deliveries: Int)] = []
    let lost = tables.leases.filter { $0.expires <= clock && $0.id != caller && clock >= startedAt + settle }.map(\.id)
    for id in lost {
      guard mutation == .recoverDespiteRunningStep || tryLock(leaseLock(id), transaction) else { continue }
      let (count, pairs) = giveBack(id, kept: Kept())
      tables.leases.removeAll { $0.id == id }
      tables.witness[id] = nil
      commit(.gaveBack(id, unresolved: pairs, taken: true), transaction)
      recovered.append((id, count))
    }
    return recovered
  }

  func resync(dispatcher: Int, kept: Kept, number: Int? = nil, _ transaction: Transaction) throws(PostgresError)
    -> Int
  {
    try lock(leaseLock(dispatcher), exclusive: true, transaction)
    try between(transaction)
    let before = tables.witness[dispatcher]
    if tables.lease(dispatcher) != nil {
      if before == nil {
        tables.witness[dispatcher] = number ?? 0
      } else if let number, number > before! {
        tables.witness[dispatcher] = number
      }
    }
    do {
      try requireLease(dispatcher, number)
    } catch {
      tables.witness[dispatcher] = before
      throw error
    }
    let (count, pairs) = giveBack(dispatcher, kept: mutation == .resyncForgetsTheHeld ? Kept() : kept)
    commit(.gaveBack(dispatcher, unresolved: pairs, taken: false), transaction)
    return count
  }

  func release(dispatcher: Int, _ transaction: Transaction) throws(PostgresError) -> Int {
    try lock(leaseLock(dispatcher), exclusive: true, transaction)
    try between(transaction)
    let (count, pairs) = giveBack(dispatcher, kept: Kept())
    tables.leases.removeAll { $0.id == dispatcher }
    tables.witness[dispatcher] = nil
    commit(.gaveBack(dispatcher, unresolved: pairs, taken: true), transaction)
    return count
  }

  func register(lease: Int, _ transaction: Transaction) throws(PostgresError) -> Int {
    let id = tables.nextDispatcher
    tables.nextDispatcher += 1
    tables.leases.append((id, clock + lease))
    tables.witness[id] = 0
    commit(.lease(id), transaction)
    return id
  }

  /// False if it is gone.
  func heartbeat(dispatcher: Int, lease: Int, _ transaction: Transaction) throws(PostgresError) -> Bool {
    guard let index = tables.leases.firstIndex(where: { $0.id == dispatcher }) else { return false }
    tables.leases[index].expires = clock + lease
    commit(.lease(dispatcher), transaction)
    return true
  }
}
