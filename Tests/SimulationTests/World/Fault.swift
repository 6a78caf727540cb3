/// What a seed decides about the world of one run: how much of what there is, and what goes wrong in it.
struct Scenario: Sendable {
  var hosts: Int
  var endpoints: Int
  var transactions: Int
  var lease: Int
  var capacity: Int
  var maxInFlight: Int
  var eventsPerCut: Int
  /// Of a thousand calls to the database so many lose their request, their reply, or come late.
  var lostRequests: Int
  var lostReplies: Int
  var slowCalls: Int
  var lateCalls: Int
  /// Of a thousand steps between two statements of a transaction so many take long.
  var slowSteps: Int
  /// How often, in the whole run.
  var kills: Int
  var shutdowns: Int
  var freezes: Int
  var partitions: Int
  var crashes: Int
  var restarts: Int
  var clockJumps: Int
  /// Of a thousand HTTP exchanges so many lose their request or their answer.
  var lostExchanges: Int
  var operators: Int

  init(_ chance: Chance) {
    // Each kind of trouble is in some runs only: what it does is then not always the work of another.
    func sometimes(_ most: Int) -> Int { chance.oneIn(2) ? chance.between(1, most) : 0 }
    hosts = chance.between(1, 3)
    endpoints = chance.between(1, 4)
    transactions = chance.between(4, 14)
    lease = chance.pick([1_500_000, 3_000_000, 5_000_000])
    capacity = chance.pick([6, 20, 60])
    maxInFlight = chance.pick([3, 10, 30])
    eventsPerCut = chance.pick([1, 3, 10, 50])
    lostRequests = sometimes(40)
    lostReplies = sometimes(60)
    slowCalls = sometimes(60)
    lateCalls = sometimes(20)
    slowSteps = sometimes(100)
    kills = sometimes(2)
    shutdowns = chance.oneIn(4) ? 1 : 0
    freezes = sometimes(2)
    partitions = sometimes(2)
    crashes = sometimes(2)
    restarts = chance.oneIn(4) ? 1 : 0
    clockJumps = chance.oneIn(4) ? 1 : 0
    lostExchanges = sometimes(100)
    operators = chance.oneIn(4) ? chance.between(1, 3) : 0
  }
}
