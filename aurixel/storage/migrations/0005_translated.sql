-- The dialect a request was translated into, and how many of its fields that cost, by kind.
ALTER TABLE usage ADD COLUMN via TEXT NOT NULL DEFAULT '';
ALTER TABLE usage ADD COLUMN losses TEXT NOT NULL DEFAULT '{}';
