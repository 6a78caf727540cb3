import OutboxStore
import Postgres

/// PostgreSQL with schema `outbox`, as far as the protocol goes: the rules of sql/*.sql over values in memory. That it
/// follows them is what `AgreementTests` are for.
///
/// A call is a transaction: it takes locks, may pause between its steps, and commits at one moment. A crash takes back
/// commits that did not wait for the disk, the last ones first.
final class ModelDatabase {
  var tables = Tables()
  /// States after the commits that the disk has not seen, after the state that it has.
  private var undurable: [(number: Int, tables: Tables)] = []
  private var durable = Tables()
  private var commits = 0
  /// Transactions of publishers in progress.
  private(set) var open: Set<Int> = []
  private(set) var isUp = true
  /// Grows with every restart: who was in the middle of something has lost it.
  private(set) var epoch = 0
  private(set) var startedAt = 0
  /// How far the server's clock is off.
  var clockOffset = 0
  /// Pairs that the commit under way has to do with.
  var touched: [Pair] = []
  var mutation: Mutation?

  private var cutLock: AdvisoryLock
  private var leaseLocks: [Int: AdvisoryLock] = [:]
  private var recorderLocks: [Int: AdvisoryLock] = [:]
  private var keyLocks: [Int: AdvisoryLock] = [:]
  private var nextBatch = 1000
  private var nextEvent = 1

  let scheduler: Scheduler?
  /// Between two steps of a transaction.
  var pause: () -> Void = {}
  /// After each commit, with what it was.
  var onCommit: (Commit) -> Void = { _ in }

  init(scheduler: Scheduler? = nil) {
    self.scheduler = scheduler
    cutLock = AdvisoryLock(scheduler)
  }

  enum Commit {
    case published([EventRow])
    case cut(Cutting)
    case claimed(Int, [Pair])
    case recorded(Int, [Outcome])
    case lease(Int)
    case health
    case gaveBack(Int, unresolved: [Pair], taken: Bool)
    case settings, nothing
  }

  /// What a cut did.
  struct Cutting {
    var dispatcher: Int
    var batch: Int?
    var direct: [Pair]
    var parked: [Pair]
    /// The endpoints as they were when it chose among them.
    var endpoints: [EndpointRow]
  }

  /// The server's clock in microseconds; every reading is later than the one before where no scheduler moves time on.
  private var ticks = 0
  var clock: Int {
    if let scheduler { return scheduler.now + clockOffset }
    ticks += 1
    return ticks + clockOffset
  }

  // MARK: - Transactions

  /// One call's transaction.
  final class Transaction {
    fileprivate var unlocks: [() -> Void] = []
    fileprivate let epoch: Int
    var waitsForDisk: Bool
    fileprivate init(epoch: Int, waitsForDisk: Bool) {
      self.epoch = epoch
      self.waitsForDisk = waitsForDisk
    }
  }

  func transaction<Value>(waitsForDisk: Bool, _ body: (Transaction) throws(PostgresError) -> Value)
    throws(PostgresError) -> Value
  {
    guard isUp else { throw .gone }
    let transaction = Transaction(epoch: epoch, waitsForDisk: waitsForDisk)
    defer { if transaction.epoch == epoch { for unlock in transaction.unlocks { unlock() } } }
    return try body(transaction)
  }

  /// Somewhere in the middle of a transaction: time may pass, and the server may go down.
  func between(_ transaction: Transaction) throws(PostgresError) {
    pause()
    if transaction.epoch != epoch { throw .gone }
  }

  func lock(_ lock: AdvisoryLock, exclusive: Bool, _ transaction: Transaction) throws(PostgresError) {
    while !(exclusive ? lock.tryExclusive() : lock.tryShared()) {
      lock.wait()
      if transaction.epoch != epoch { throw .gone }
    }
    transaction.unlocks.append { lock.release(exclusive: exclusive) }
  }

  func tryLock(_ lock: AdvisoryLock, _ transaction: Transaction) -> Bool {
    guard lock.tryExclusive() else { return false }
    transaction.unlocks.append { lock.release(exclusive: true) }
    return true
  }

  func leaseLock(_ id: Int) -> AdvisoryLock { Self.lock(&leaseLocks, id, scheduler) }
  func recorderLock(_ id: Int) -> AdvisoryLock { Self.lock(&recorderLocks, id, scheduler) }
  func keyLock(_ id: Int) -> AdvisoryLock { Self.lock(&keyLocks, id, scheduler) }
  func tryCutLock(_ transaction: Transaction) -> Bool { tryLock(cutLock, transaction) }
  func isCutting() -> Bool { cutLock.isExclusive }

  private static func lock(_ locks: inout [Int: AdvisoryLock], _ id: Int, _ scheduler: Scheduler?) -> AdvisoryLock {
    if let lock = locks[id] { return lock }
    let lock = AdvisoryLock(scheduler)
    locks[id] = lock
    return lock
  }

  /// What a transaction changed is there from now on. The changes were made to `tables` just before, in one go.
  func commit(_ what: Commit, _ transaction: Transaction) {
    tables.nextTx += 1
    commit(what, waitsForDisk: transaction.waitsForDisk)
  }

  private func commit(_ what: Commit, waitsForDisk: Bool) {
    commits += 1
    if waitsForDisk || scheduler == nil {
      undurable = []
      durable = tables
    } else {
      undurable.append((commits, tables))
      let number = commits
      scheduler?.after(scheduler!.chance.below(200_000)) { [self] in flush(upTo: number) }
    }
    onCommit(what)
    touched.removeAll(keepingCapacity: true)
  }

  private func flush(upTo number: Int) {
    guard let index = undurable.lastIndex(where: { $0.number <= number }) else { return }
    durable = undurable[index].tables
    undurable.removeSubrange(...index)
  }

  var snapshot: Snapshot { Snapshot(xmax: tables.nextTx, xip: open.sorted()) }

  func newBatch() -> Int {
    nextBatch += 1
    return nextBatch
  }

  // MARK: - Publishers

  /// A publisher's transaction: begins when it first writes.
  func begin() -> Int {
    let tx = tables.nextTx
    tables.nextTx += 1
    open.insert(tx)
    return tx
  }

  func newEvent() -> Int {
    defer { nextEvent += 1 }
    return nextEvent
  }

  /// Ends a publisher's transaction; false if the server lost it before.
  func end(_ tx: Int, of epoch: Int, _ events: [EventRow]?) -> Bool {
    guard epoch == self.epoch, isUp, open.remove(tx) != nil else { return false }
    guard let events else { return true }
    for event in events { tables.insert(event) }
    commit(.published(events), waitsForDisk: true)
    return true
  }

  // MARK: - Operators

  func addEndpoint(_ endpoint: EndpointRow) {
    tables.endpoints.append(endpoint)
    tables.nextTx += 1
    commit(.settings, waitsForDisk: true)
  }

  /// `pause`, `disable`, `resume`.
  func setState(_ id: Int, _ state: EndpointRow.State) {
    tables.endpoints[id - 1].state = state
    tables.endpoints[id - 1].version += 1
    if state == .enabled, var health = tables.health[id] {
      (health.state, health.failures, health.openedAt, health.probeAt) = (.closed, 0, nil, nil)
      tables.health[id] = health
    }
    tables.nextTx += 1
    commit(.settings, waitsForDisk: true)
  }

  // MARK: - Going down and coming back

  /// Stops at once. `crash`: what was not on the disk yet is lost from some commit on.
  func goDown(crash: Bool, keep: (Int) -> Int = { $0 }) {
    isUp = false
    epoch += 1
    open = []
    if crash {
      let kept = keep(undurable.count)
      let before = tables
      let last = kept == 0 ? durable : undurable[kept - 1].tables
      if kept < undurable.count { tables = last }
      // Ids that nothing on the disk knows of are given out again; a sequence is logged 32 numbers ahead.
      tables.nextTx = max(last.nextTx, tables.nextTx)
      tables.nextSeq = max(tables.nextSeq, before.nextSeq)
      if mutation != .skipWitness { tables.witness = [:] }
    }
    undurable = []
    durable = tables
    for lock in [cutLock] + Array(leaseLocks.values) + Array(recorderLocks.values) + Array(keyLocks.values) {
      lock.abandon()
    }
    (cutLock, leaseLocks, recorderLocks, keyLocks) = (AdvisoryLock(scheduler), [:], [:], [:])
  }

  func comeBack() {
    isUp = true
    startedAt = clock
  }
}

extension PostgresError {
  static let gone = PostgresError(.connection, message: "the connection is gone")
  static func raised(_ state: String) -> PostgresError { PostgresError(.server, sqlState: state, message: state) }
}
