// The project's own sample set, embedded in the binary so that `martlet demo` runs from anywhere.

/// events.jsonl of this folder: JSON Lines of `{"type", "key", "payload"}`.
package let sampleEvents: [UInt8] = PackageResources.events_jsonl
