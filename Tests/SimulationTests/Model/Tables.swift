/// An event and an endpoint, in one number: cheap to hash in a debug build.
struct Pair: Hashable, Comparable, CustomStringConvertible {
  let code: Int
  init(_ event: Int, _ endpoint: Int) { code = event << 8 | endpoint }
  var event: Int { code >> 8 }
  var endpoint: Int { code & 255 }
  static func < (a: Pair, b: Pair) -> Bool { a.code < b.code }
  var description: String { "event \(event) → endpoint \(endpoint)" }
}

/// A `pg_snapshot`.
struct Snapshot: Equatable {
  var xmax = 1
  /// In progress, ascending.
  var xip: [Int] = []
  var xmin: Int { xip.first ?? xmax }

  /// `pg_visible_in_snapshot`
  func sees(_ tx: Int) -> Bool { tx < xmax && !xip.contains(tx) }
  var text: String { "\(xmin):\(xmax):\(xip.map(String.init).joined(separator: ","))" }
}

struct EventRow {
  /// Grows with the time of insertion, as version 7 UUIDs do.
  var id: Int
  var tx: Int
  var type: Int
  var key: Int?
  var notBefore: Int?
}

struct EndpointRow {
  enum State: String { case enabled, paused, disabled }
  var id: Int
  var version = 1
  var state = State.enabled
  var ordered = false
  /// Types of event it is subscribed to.
  var types: [Int] = [0, 1]
  var failureThreshold = 10
  var maxAttempts = 15
  var maxInFlight = 32
  var timeout = 1_000_000
  var firstDelay = 100_000
  var longestDelay = 2_000_000
  var maxAge = 3_600_000_000
}

struct Delivery: Equatable {
  var pair: Pair
  var seq: Int
  var key: Int?
  var ready = true
  var attempts = 0
  var due: Int
  var dispatcher: Int?
  var created: Int
}

struct Attempt: Equatable {
  enum Kind: String { case delivered, failed, returned, unknown }
  var batch: Int?
  var dispatcher: Int
  var kind: Kind
  var number: Int
  var duration: Int?
}

struct Batch: Equatable {
  var id: Int
  var dispatcher: Int
  var pairs: [Pair]
}

struct DeadLetter: Equatable {
  var attempts: Int
  var reason: String
}

struct Health: Equatable {
  enum State: String {
    case closed, open
    case halfOpen = "half_open"
  }
  var state = State.closed
  var failures = 0
  var openedAt: Int?
  var probeAt: Int?
}

struct Position: Equatable {
  struct After: Equatable {
    var tx: Int
    var id: Int
  }
  var done = Snapshot()
  var target = Snapshot()
  var after: After?
  var events = 0
  var cutAt = Int.min / 2

  /// Whether an event, if it was committed, has been taken from the log.
  func isPast(_ event: EventRow) -> Bool {
    if done.sees(event.tx) { return true }
    guard let after, target.sees(event.tx) else { return false }
    return (event.tx, event.id) <= (after.tx, after.id)
  }
}

/// Everything that is committed. A value: what a crash takes back is there to be put back.
struct Tables {
  var nextTx = 3
  var events: [EventRow] = []  // by (tx, id)
  var endpoints: [EndpointRow] = []  // by id, from 1
  var position = Position()
  var positions = 0
  var batches: [Batch] = []
  var deliveries: [Pair: Delivery] = [:]
  var nextSeq = 1
  var attempts: [Pair: [Attempt]] = [:]
  var dead: [Pair: DeadLetter] = [:]
  var health: [Int: Health] = [:]
  /// Leases, and when they run out, by id.
  var leases: [(id: Int, expires: Int)] = []
  var nextDispatcher = 1
  /// With the number of the last resync. Unlogged: a crash empties it.
  var witness: [Int: Int] = [:]

  func endpoint(_ id: Int) -> EndpointRow? { endpoints.indices.contains(id - 1) ? endpoints[id - 1] : nil }
  func lease(_ dispatcher: Int) -> Int? { leases.first { $0.id == dispatcher }?.expires }

  /// Rows that are neither ready nor of a key, the lowest events first.
  var setAside: [Pair] { deliveries.values.filter { !$0.ready && $0.key == nil }.map(\.pair).sorted() }

  func hasAttempt(_ pair: Pair, batch: Int) -> Bool {
    guard let attempts = attempts[pair] else { return false }
    for attempt in attempts where attempt.batch == batch { return true }
    return false
  }

  /// What waits for an endpoint, in the order of the log.
  func waiting(_ endpoint: Int, where isWanted: (Delivery) -> Bool) -> [Delivery] {
    var found: [Delivery] = []
    for delivery in deliveries.values where delivery.pair.endpoint == endpoint && isWanted(delivery) {
      found.append(delivery)
    }
    return found.sorted { $0.seq < $1.seq }
  }

  mutating func insert(_ event: EventRow) {
    var index = events.count
    while index > 0, (events[index - 1].tx, events[index - 1].id) > (event.tx, event.id) { index -= 1 }
    events.insert(event, at: index)
  }
}
