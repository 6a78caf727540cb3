import ArgumentParser
import Foundation
import HTTPDelivery
import OutboxStore
import Postgres

/// What `endpoint add` and `endpoint set` have in common: the settings of an endpoint, each left as it is unless given. The
/// values are checked by the database, which says what is wrong with one.
struct EndpointSettingsOptions: ParsableArguments {
  @Option(
    name: .customLong("type"),
    help: "An event type (order.created), a prefix (order.*), or * for all; repeat for several. Default: *"
  )
  var types: [String] = []
  @Option(help: "Only events of this tenant.") var tenant: String?
  @Option(
    help: ArgumentHelp(
      "Only events that this SQL/JSON path accepts: '$.payload.total > 100 && $.metadata.region == \"eu\"'.",
      valueName: "jsonpath"
    )
  )
  var filter: String?
  @Option(
    help: """
      What is sent: standard {"type","timestamp","data"}, cloudevents (structured 1.0), cloudevents-binary, raw (the \
      payload alone) or classic {"event","data"}. Default: standard
      """
  )
  var format: String?
  @Option(
    help: ArgumentHelp(
      "Have this SQL function, f(outbox.event) returns jsonb, make the body; see outbox.allow_transform.",
      valueName: "schema.function"
    )
  )
  var transform: String?
  @Option(name: .customLong("header"), help: "\"Name: value\", sent with every request; repeat for several.")
  var headers: [String] = []
  @Flag(inversion: .prefixedNo, help: "Deliver events with the same key in the order of their commits.")
  var ordered: Bool?
  @Option(help: "What a dead letter means for later events of its key: skip (they go on) or hold. Default: skip")
  var onDeadLetter: String?
  @Option(help: "For the whole exchange. Default: 15 s") var timeout: String?
  @Option(help: "Requests to it at a time, from each dispatcher. Default: 32") var maxInFlight: Int32?
  @Option(help: "Deliveries a second, over all dispatchers. Default: as fast as it answers") var rateLimit: Double?
  @Option(help: "Attempts before an event becomes a dead letter. Default: 15") var maxAttempts: Int32?
  @Option(help: "The pause before the second attempt. Default: 5 s") var firstDelay: String?
  @Option(help: "How much longer each pause is than the one before. Default: 3") var multiplier: Double?
  @Option(help: "The longest pause. Default: 12 h") var longestDelay: String?
  @Option(help: "By which part of it a pause varies at random, 0 to 1. Default: 0.1") var jitter: Double?
  @Option(
    help: """
      The pauses themselves, instead of --max-attempts, --first-delay, --multiplier and --longest-delay: \
      '10 s, 1 min, 1 h'.
      """
  )
  var retryDelays: String?
  @Option(help: "Events that have waited longer become dead letters untried. Default: 7 days") var maxAge: String?
  @Option(help: "Failures in a row that open the circuit. Default: 10") var failureThreshold: Int32?
  @Option(help: "The part of failures in a window that opens the circuit, 0 to 1. Default: 0.5")
  var failureRate: Double?
  @Option(help: "The length of that window. Default: 1 min") var failureWindow: String?
  @Option(help: "Disable it after so long a time of nothing but failures. Default: 5 days") var disableAfter: String?
  @Option(
    name: .customLong("no"),
    help: ArgumentHelp(
      "Take away filter, transform, headers, rate-limit, retry-delays, failure-rate or disable-after.",
      valueName: "setting"
    )
  )
  var removed: [Removable] = []

  enum Removable: String, ExpressibleByArgument, CaseIterable {
    case filter, transform, headers
    case rateLimit = "rate-limit"
    case retryDelays = "retry-delays"
    case failureRate = "failure-rate"
    case disableAfter = "disable-after"
  }

  func validate() throws {
    for header in headers where !header.contains(":") {
      throw ValidationError("--header \"\(header)\" is not of the form \"Name: value\".")
    }
  }

  /// A column of `outbox.endpoint`, which is also an argument of `outbox.add_endpoint`, and an expression for its value.
  struct Setting {
    var name: String
    /// With `$?` where the parameter goes.
    var expression: String
    var parameter: Parameter?
  }

  func settings() throws -> [Setting] {
    var settings: [Setting] = []
    func add(_ name: String, _ type: String, _ parameter: Parameter?) {
      if let parameter { settings.append(Setting(name: name, expression: "$?::\(type)", parameter: parameter)) }
    }
    if !types.isEmpty { add("event_types", "text[]", .textArray(types)) }
    add("tenant", "text", tenant.map(Parameter.text))
    add("filter", "text::jsonpath", filter.map(Parameter.text))
    add("format", "text", format.map(Parameter.text))
    add("transform", "text", transform.map(Parameter.text))
    if !headers.isEmpty { add("headers", "jsonb", .jsonb(try headersJSON())) }
    add("ordered", "boolean", ordered.map(Parameter.bool))
    add("on_dead_letter", "text", onDeadLetter.map(Parameter.text))
    add("timeout", "text::interval", timeout.map(Parameter.text))
    add("max_in_flight", "int", maxInFlight.map(Parameter.int4))
    add("rate_limit", "float8", rateLimit.map(Parameter.float8))
    add("max_attempts", "int", maxAttempts.map(Parameter.int4))
    add("first_delay", "text::interval", firstDelay.map(Parameter.text))
    add("multiplier", "float8", multiplier.map(Parameter.float8))
    add("longest_delay", "text::interval", longestDelay.map(Parameter.text))
    add("jitter", "float8", jitter.map(Parameter.float8))
    add(
      "retry_delays",
      "text[]::interval[]",
      retryDelays.map { .textArray($0.split(separator: ",").map(String.init)) }
    )
    add("max_age", "text::interval", maxAge.map(Parameter.text))
    add("failure_threshold", "int", failureThreshold.map(Parameter.int4))
    add("failure_rate", "float8", failureRate.map(Parameter.float8))
    add("failure_window", "text::interval", failureWindow.map(Parameter.text))
    add("disable_after", "text::interval", disableAfter.map(Parameter.text))
    for setting in removed {
      let name = setting.rawValue.replacing("-", with: "_")
      settings.append(Setting(name: name, expression: setting == .headers ? "'{}'" : "NULL", parameter: nil))
    }
    if let twice = Dictionary(grouping: settings, by: \.name).first(where: { $0.value.count > 1 }) {
      throw ValidationError("--no \(twice.key.replacing("_", with: "-")) contradicts its being set.")
    }
    return settings
  }

  private func headersJSON() throws -> String {
    var object: [String: String] = [:]
    for header in headers {
      let name = String(header.prefix { $0 != ":" })
      let value = String(header.drop { $0 != ":" }.dropFirst().drop { $0 == " " })
      if let problem = HTTPHeader.problem(name: name, value: value) { throw CommandFailure(problem) }
      guard name.lowercased() != "authorization" else {
        throw CommandFailure(
          "Authorization is a secret, and headers are not: everybody may read them. Use martlet endpoint set-auth."
        )
      }
      guard object.updateValue(value, forKey: name) == nil else {
        throw CommandFailure("The header \(name) is given twice.")
      }
    }
    return String(decoding: try JSONEncoder().encode(object), as: UTF8.self)
  }
}

extension [EndpointSettingsOptions.Setting] {
  /// `name => expression, …` or `name = expression, …`, with the parameters numbered from `first`.
  func list(joinedBy sign: String, from first: Int) -> (sql: String, parameters: [Parameter]) {
    var parameters: [Parameter] = []
    let items = map { setting in
      if let parameter = setting.parameter { parameters.append(parameter) }
      return "\(setting.name) \(sign) \(setting.expression.replacing("$?", with: "$\(first + parameters.count - 1)"))"
    }
    return (items.joined(separator: ", "), parameters)
  }
}
