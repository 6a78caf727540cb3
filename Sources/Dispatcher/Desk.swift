import DeliveryCore
import Foundation
import HTTPDelivery
import OutboxStore
import SecretSealing
import Synchronization

/// A delivery in memory, between being handed out by the database and its outcome.
final class Held: Sendable {
  let event: OutboxEvent
  let endpoint: Int64
  /// The batch it was cut in; nil if it was claimed.
  let batch: Int64?
  /// Real attempts before this one.
  let attempts: Int
  /// The age of the event when we got it, by the database's clock, and when that was by ours.
  let age: Duration
  let takenAt: Duration
  /// Which of our leases it was handed to. Its outcome means nothing under another.
  let dispatcher: Int64

  init(
    event: OutboxEvent,
    endpoint: Int64,
    batch: Int64?,
    attempts: Int,
    age: Duration,
    takenAt: Duration,
    dispatcher: Int64
  ) {
    self.event = event
    self.endpoint = endpoint
    self.batch = batch
    self.attempts = attempts
    self.age = age
    self.takenAt = takenAt
    self.dispatcher = dispatcher
  }

  var key: DeliveryKey { DeliveryKey(event: event.id, endpoint: endpoint) }
}

/// Where the threads of a dispatcher meet: intake lays deliveries down, the HTTP engine takes them up and brings back
/// results, the recorder takes the outcomes away. Every decision is made by a pure value under one lock, held for
/// microseconds; signing and building of requests happen outside it.
final class Desk: Sendable {
  struct Limits: Sendable {
    var plan = IntakePlan.Limits()
    var capacity = 2000
    var maxInFlight = 1000
    /// Outcomes that may wait for the recorder before intake pauses.
    var unrecorded = 10_000
    var outcomesPerRecord = 2000
  }

  struct State {
    var flight: FlightControl<Held>
    var plan: IntakePlan
    var endpoints: [Int64: Endpoint] = [:]
    /// With the settings that each was sent under: what they say of a failure counts, whatever has become of them since.
    var inFlight: [UInt64: Departure] = [:]
    var nextTag: UInt64 = 1
    var outcomes: [Outcome] = []
    /// Outcomes still missing, per batch; an entry stays until the record that removes the batch is committed.
    var batches: [Int64: Int] = [:]
    /// What the recorder is writing now.
    var recording: [Outcome] = []
    /// What the database says we hold may differ from what we do hold: nothing is recorded before they were compared.
    var mustResync = false
    /// The number of the last comparison; what was sent before it means nothing after it.
    var resyncs = 0
    /// A record was sent, and neither reply nor failure has come.
    var isRecordUnderWay = false
    /// A record was sent and no reply came; it is being repeated.
    var isRepeatingRecord = false
    /// The lease, and until when we may act on it.
    var lease: (dispatcher: Int64, until: Duration)?
    /// Something may be queued that was not sent for want of a lease. Noted and not worked out later from the time: a host
    /// may stand still between the one and the other.
    var lacksLease = false
    /// The database's clock, in seconds since 1970, at a moment of ours.
    var serverTime: (seconds: Double, at: Duration) = (0, .zero)
    var isStopping = false
    /// How many outcomes the recorder waits for; nil if it does not wait.
    var recorderAwaits: Int?
    /// Among the outcomes is one that somebody may be waiting for; see `Outcome.isUrgent`.
    var hasUrgentOutcome = false
    /// The room that intake waits for; nil if it does not wait for any.
    var intakeAwaits: (endpoint: Int64, slots: Int)?
    /// The server's snapshot at the last poll, and one at which the log was exhausted.
    var polledAt: String?
    var exhaustedAt: String?
    /// Endpoints whose circuit is not closed, or that are not enabled, as they were last logged.
    var told: [Int64: EndpointChange] = [:]
    var counters = DispatcherCounters()

    mutating func note(_ outcome: Outcome) {
      outcomes.append(outcome)
      if outcome.isUrgent { hasUrgentOutcome = true }
    }
  }

  let limits: Limits
  let egress: EgressPolicy
  let preparation = Preparation()
  let keyring: Keyring
  let intakeBell: Bell
  let recordBell: Bell
  let leaseBell: Bell
  private let state: Mutex<State>
  private let surroundings: Surroundings

  init(
    limits: Limits,
    egress: EgressPolicy,
    keyring: Keyring = Keyring(),
    surroundings: Surroundings = .host()
  ) {
    self.limits = limits
    self.egress = egress
    self.keyring = keyring
    self.surroundings = surroundings
    (intakeBell, recordBell, leaseBell) = (surroundings.bell(), surroundings.bell(), surroundings.bell())
    self.state = Mutex(
      State(
        flight: FlightControl(capacity: limits.capacity, maxInFlight: limits.maxInFlight),
        plan: IntakePlan(limits: limits.plan)
      )
    )
  }

  /// Time on this host's monotonic clock. Only differences mean anything.
  var now: Duration { surroundings.now() }
  private func random() -> Double { surroundings.random() }

  func withState<Value>(_ body: (inout sending State) -> sending Value) -> sending Value { state.withLock(body) }

  var status: DispatcherStatus {
    let now = now
    return withState { state in
      DispatcherStatus(
        isLeased: state.lease.map { now < $0.until } ?? false,
        inFlight: state.flight.inFlight,
        queued: state.flight.queued,
        unrecorded: state.outcomes.count + state.recording.count,
        counters: state.counters
      )
    }
  }

  // MARK: - The HTTP engine's side

  /// A delivery about to be sent.
  struct Departure {
    var tag: UInt64
    var held: Held
    var endpoint: Endpoint
    /// Seconds since 1970, by the database's clock.
    var timestamp: Int
  }

  /// Notes results and says what to send next.
  func complete(_ completions: [HTTPCompletion]) -> [HTTPRequest] {
    let now = now
    guard !completions.contains(where: Preparation.isToken) else {
      let (requests, failed) = preparation.tokensCame(completions.filter(Preparation.isToken), at: now)
      return requests + complete(completions.filter { !Preparation.isToken($0) } + failed)
    }
    let (departures, wakeRecorder, wakeIntake) = state.withLock { state in
      for completion in completions {
        guard let departure = state.inFlight.removeValue(forKey: completion.tag) else { continue }
        let held = departure.held
        state.flight.finish(endpoint: held.endpoint)
        state.plan.finished(
          endpoint: held.endpoint,
          isIdle: state.flight.held(by: held.endpoint) == 0,
          at: now
        )
        guard held.dispatcher == state.lease?.dispatcher else { continue }
        if completion.outcome == .response(status: 401) { preparation.tokenRejected(by: held.endpoint) }
        state.note(
          Outcome(held, completion, policy: departure.endpoint.policy, now: now, random: random())
        )
      }
      let departures = depart(&state, now: now)
      return (departures, takeRecorderWakeUp(&state), takeIntakeWakeUp(&state))
    }
    if wakeRecorder { recordBell.ring() }
    if wakeIntake { intakeBell.ring() }
    return preparation.requests(for: departures, at: now)
  }

  /// Takes deliveries in and says what to send at once.
  func accept(_ deliveries: [Held]) -> [HTTPRequest] {
    let now = now
    let (departures, wakeRecorder) = state.withLock { state in
      for held in deliveries where held.dispatcher == state.lease?.dispatcher {
        if let batch = held.batch { state.batches[batch, default: 0] += 1 }
        if state.isStopping {
          state.note(Outcome(held, .returned, tried: false))
          continue
        }
        state.flight.enqueue(
          held,
          endpoint: held.endpoint,
          limit: state.endpoints[held.endpoint]?.maxInFlight ?? 1
        )
      }
      let departures = depart(&state, now: now)
      return (departures, takeRecorderWakeUp(&state))
    }
    if wakeRecorder { recordBell.ring() }
    return preparation.requests(for: departures, at: now)
  }

  /// Starts again after a pause for want of a lease.
  func resumeDepartures() -> [HTTPRequest] { accept([]) }

  /// Takes off the queues what may leave now. Nothing leaves without a lease that is certainly ours.
  private func depart(_ state: inout State, now: Duration) -> [Departure] {
    guard !state.isStopping else { return [] }
    guard let lease = state.lease, now < lease.until else {
      state.lacksLease = true
      return []
    }
    var departures: [Departure] = []
    let timestamp = Int(state.serverTime.seconds + (now - state.serverTime.at) / .seconds(1))
    while true {
      let started = state.flight.start()
      if started.isEmpty { return departures }
      for held in started {
        guard let endpoint = state.endpoints[held.endpoint], endpoint.isEnabled else {
          finishUntried(held, .returned, &state)
          continue
        }
        let age = held.age + (now - held.takenAt)
        if age > endpoint.policy.maxAge {
          finishUntried(held, .dead(.expired), &state)
        } else if let problem = endpoint.problem(at: timestamp) {
          state.flight.finish(endpoint: held.endpoint)
          state.note(Outcome(held, problem, policy: endpoint.policy, age: age, random: random()))
        } else {
          let tag = state.nextTag
          state.nextTag += 1
          let departure = Departure(tag: tag, held: held, endpoint: endpoint, timestamp: timestamp)
          state.inFlight[tag] = departure
          departures.append(departure)
        }
      }
    }
  }

  private func finishUntried(_ held: Held, _ verdict: Verdict, _ state: inout State) {
    state.flight.finish(endpoint: held.endpoint)
    state.note(Outcome(held, verdict, tried: false))
  }

  func takeRecorderWakeUp(_ state: inout State) -> Bool {
    guard let count = state.recorderAwaits, !state.outcomes.isEmpty,
      state.outcomes.count >= count || state.hasUrgentOutcome
    else { return false }
    state.recorderAwaits = nil
    return true
  }

  private func takeIntakeWakeUp(_ state: inout State) -> Bool {
    guard let wanted = state.intakeAwaits, state.flight.room(for: wanted.endpoint) >= wanted.slots else { return false }
    state.intakeAwaits = nil
    return true
  }
}

/// What a dispatcher has done since it started.
package struct DispatcherCounters: Sendable, Equatable {
  package var cuts = 0
  package var eventsCut = 0
  package var parked = 0
  package var claimed = 0
  package var delivered = 0
  package var failed = 0
  package var dead = 0
  package var returned = 0
  package var records = 0
  package var recovered = 0
  package var leasesLost = 0
  package init() {}
}
