import Foundation

/// The event type of a delivery, wherever the format puts it.
package enum EventType {
  /// The `ce-type` header (binary CloudEvents), or the field `type` (Standard Webhooks, structured CloudEvents) or
  /// `event` (classic) of a JSON body. Nil if there is none.
  package static func of(ceType: String?, body: [UInt8]) -> String? {
    if let ceType, !ceType.isEmpty { return ceType }
    guard body.first(where: { !whitespace.contains($0) }) == UInt8(ascii: "{") else { return nil }
    let envelope = try? JSONDecoder().decode(Envelope.self, from: Data(body))
    return envelope?.type ?? envelope?.event
  }

  private static let whitespace: [UInt8] = [0x20, 0x09, 0x0A, 0x0D]

  private struct Envelope: Decodable {
    var type: String?
    var event: String?

    private enum CodingKeys: CodingKey {
      case type, event
    }

    /// A field that is there but not text is no event type, and no reason to refuse the rest.
    init(from decoder: any Decoder) throws {
      let fields = try decoder.container(keyedBy: CodingKeys.self)
      type = try? fields.decode(String.self, forKey: .type)
      event = try? fields.decode(String.self, forKey: .event)
    }
  }
}
