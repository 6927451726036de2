-- The join token each certificate came of. A node that joins again has another one, and keeps those it got before.

ALTER TABLE certificate ADD COLUMN token_id TEXT NOT NULL DEFAULT '';   -- empty: of none
UPDATE certificate SET token_id = coalesce((SELECT n.token_id FROM node AS n WHERE n.node_id = certificate.node_id), '');
